import { createCipheriv, createDecipheriv, createECDH, ECDH, hkdfSync, randomBytes } from "node:crypto";

/**
 * One value as dotenvx seals it: ECIES over secp256k1. `ephemeral public key (65) || nonce (16) || tag (16) || AES-256-GCM`, the AES key
 * by HKDF-SHA-256 from `ephemeral public key || shared point`, both uncompressed, without salt and info. Of the curve, Node tells
 * the shared point's x alone: hence the library (docs/adr/0012-encrypted-env-files.md).
 */
const CURVE = "secp256k1";
const [POINT, NONCE, TAG] = [65, 16, 16] as const;

/** A sealed value is longer than this many bytes. */
export const MIN_SEALED = POINT + NONCE + TAG;

/** @throws whatever the library says of a point that is none; no word of it may come out */
export const seal = async (publicKey: Uint8Array, value: Uint8Array): Promise<Buffer> => {
  const once = createECDH(CURVE);
  const ephemeral = once.generateKeys();
  const nonce = randomBytes(NONCE);
  const key = await aesKey(once.getPrivateKey(), publicKey, ephemeral);
  const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG });
  const text = Buffer.concat([cipher.update(value), cipher.final()]);
  return Buffer.concat([ephemeral, nonce, cipher.getAuthTag(), text]);
};

/** @throws whatever the library says of another key, or of bytes that are damaged; no word of it may come out */
export const unseal = async (privateKey: Uint8Array, sealed: Uint8Array): Promise<Buffer> => {
  const [ephemeral, rest] = [sealed.subarray(0, POINT), sealed.subarray(POINT)];
  const key = await aesKey(privateKey, ephemeral, ephemeral);
  const decipher = createDecipheriv("aes-256-gcm", key, rest.subarray(0, NONCE), { authTagLength: TAG });
  decipher.setAuthTag(rest.subarray(NONCE, NONCE + TAG));
  return Buffer.concat([decipher.update(rest.subarray(NONCE + TAG)), decipher.final()]);
};

/** The public key (compressed, lower-case hex) of 32 bytes; null when they are no private key. */
export const publicKeyOf = (privateKey: Uint8Array): string | null => {
  try {
    const pair = createECDH(CURVE);
    pair.setPrivateKey(privateKey);
    return pair.getPublicKey("hex", "compressed");
  } catch {
    return null;
  }
};

/** Whether this hex is a point of the curve. */
export const isPublicKey = (hex: string): boolean => {
  try {
    ECDH.convertKey(hex, CURVE, "hex");
    return true;
  } catch {
    return false;
  }
};

/** The library is loaded by the first value that is sealed or unsealed, and not before. */
const aesKey = async (own: Uint8Array, other: Uint8Array, ephemeral: Uint8Array): Promise<Buffer> => {
  const { secp256k1 } = await import("@noble/curves/secp256k1.js");
  const scalar = Buffer.concat([Buffer.alloc(32 - own.length), own]);
  const shared = secp256k1.getSharedSecret(scalar, other, false);
  return Buffer.from(hkdfSync("sha256", Buffer.concat([ephemeral, shared]), "", "", 32));
};
