import { afterAll, beforeAll, expect, it } from "vitest";
import { openKeyVault } from "../../providers/stores/azure-key-vault.ts";
import { vaultStore } from "../kit/azure/store.ts";
import { startVault, type VaultServer } from "../kit/azure/server.ts";
import { type Place, storeContract } from "./store.ts";

let server: VaultServer;
beforeAll(async () => {
  server = await startVault();
});
afterAll(async () => await server.close());

let places = 0;
/** A secret of its own in the one vault. `begin`: what is there before; null = no secret of that name. */
const place = (begin: string | null, more: { readonly create?: boolean } = {}): Place => {
  const name = `imkit-api-key-${(places += 1)}`;
  const kept = { tags: { team: "chat" }, contentType: "text/plain", attributes: { exp: 4_102_444_800 } };
  if (begin !== null) server.vault.put(name, begin, kept);
  const { config, tools } = vaultStore(server, name, more);
  return {
    store: openKeyVault(config, tools),
    put: async (secret) => void server.vault.put(name, secret.reveal(), kept),
    breakIt: async () => {
      const answered = { status: 503, text: "<html>away</html>" };
      server.fault = ({ path }) => (path.includes(`/${name}`) ? { how: answered } : null);
    },
    neighbours: async () => {
      const last = server.vault.versions(name).at(-1);
      const { "imkit-rotator-op": _, ...tags } = last?.tags ?? {};
      return JSON.stringify([last?.contentType, last?.attributes.exp, begin === null ? null : tags]);
    },
    writes: async () => server.vault.versions(name).length,
    close: async () => {
      server.fault = () => null;
    },
  };
};

const bench = { it, expect };
storeContract({ ...bench, name: "azure-key-vault, empty value", open: async () => place("") });
storeContract({
  ...bench,
  name: "azure-key-vault, no secret",
  open: async () => ({ ...place(null, { create: true }), neighbours: async () => "" }),
});
