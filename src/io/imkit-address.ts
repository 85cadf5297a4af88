import type { BlockList, LookupFunction } from "node:net";

/** Node's network half, loaded when an address is to be judged: a config with host names, which every start reads, needs none of it. */
const net = () => process.getBuiltinModule("node:net");

type Lists = { readonly loopback: BlockList; readonly forbidden: BlockList };
let made: Lists | null = null;
const lists = (): Lists => {
  made ??= makeLists();
  return made;
};

const makeLists = (): Lists => {
  const { BlockList } = net();
  const loopback = new BlockList();
  loopback.addSubnet("127.0.0.0", 8, "ipv4");
  loopback.addAddress("::1", "ipv6");
  // Where clouds serve their machine credentials, and addresses that mean no host.
  const forbidden = new BlockList();
  forbidden.addSubnet("169.254.0.0", 16, "ipv4");
  forbidden.addSubnet("fe80::", 10, "ipv6");
  forbidden.addAddress("100.100.100.200", "ipv4");
  forbidden.addAddress("fd00:ec2::254", "ipv6");
  forbidden.addSubnet("64:ff9b::a9fe:0", 112, "ipv6");
  forbidden.addSubnet("0.0.0.0", 8, "ipv4");
  forbidden.addAddress("::", "ipv6");
  return { loopback, forbidden };
};

const listed = (list: keyof Lists, address: string): boolean => {
  // Told from a name by hand: the first isIP of a process takes 3 ms.
  const family = /^[\d.]+$|:/.test(address) ? net().isIP(address) : 0;
  return family !== 0 && lists()[list].check(address, family === 6 ? "ipv6" : "ipv4");
};

const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, "");

const THIS_HOST: ReadonlySet<string> = new Set(["localhost", "127.0.0.1"]);

/**
 * Why `url` cannot be an app's base URL, in our own words (they do not quote it); null = fine. A base URL is an origin: our paths start at
 * the host (`/admin/…`), so a path, also one that ends in `/`, would be dropped or doubled in silence; only a bare `/` is allowed.
 */
export const checkBaseUrl = (url: string): string | null => {
  if (!/^[\x21-\x7e]+$/.test(url)) return "it may hold printable ASCII only; write a host in its xn-- form";
  if (!URL.canParse(url)) return "it is not a URL";
  if (!/^https?:\/\/[^/\\]/i.test(url)) return "it must start with https://";
  if (url.includes("@")) return "it must not hold a user name or password";
  if (/[?#\\]/.test(url)) return "it must not have a query or a fragment";
  const parsed = new URL(url);
  if (parsed.pathname !== "/" || /^https?:\/\/[^/]+\/./i.test(url)) return "it must not have a path";
  const host = hostOf(parsed);
  if (THIS_HOST.has(host)) return null;
  if (listed("forbidden", host)) return "its address is a link-local, metadata or unspecified one";
  if (parsed.protocol === "http:" && !listed("loopback", host))
    return "it must be https (http is for 127.0.0.1, ::1 and localhost only)";
  return null;
};

/** Code of the error with which `guardedLookup` fails a name that leads where no key may go. */
export const ADDRESS_REFUSED = "ERR_ADDRESS_REFUSED";

const refusal = (): NodeJS.ErrnoException =>
  Object.assign(new Error(ADDRESS_REFUSED), { code: ADDRESS_REFUSED });

/**
 * A DNS lookup for sockets, so that the address checked is the address used: one forbidden address among the answers fails the lookup
 * with `ADDRESS_REFUSED`, and so does, for plain http, one that is not loopback.
 */
export const guardedLookup =
  (
    loopbackOnly: boolean,
    lookup: LookupFunction = process.getBuiltinModule("node:dns").lookup,
  ): LookupFunction =>
  (hostname, options, callback) => {
    lookup(hostname, options, (error, found, family) => {
      const addresses = typeof found === "string" ? [found] : (found ?? []).map((entry) => entry.address);
      const isBad = (address: string): boolean =>
        net().isIP(address) === 0 ||
        listed("forbidden", address) ||
        (loopbackOnly && !listed("loopback", address));
      if (error === null && (addresses.length === 0 || addresses.some(isBad)))
        return callback(refusal(), "", 0);
      return callback(error, found, family);
    });
  };
