import { readFile } from "node:fs/promises";
import type { RequestOptions } from "node:https";
import { delimiter, dirname, join, resolve } from "node:path";
import type { Cluster, Context, KubeConfig, User } from "@kubernetes/client-node";
import type { ProviderError } from "../src/core/errors.ts";
import { errnoOf, monotonicMs, refused, resolvePath, type Tools } from "./kit.ts";
import { runProgram } from "./program.ts";

/** Of a target's config: what says which API server it is. */
export type KubePlace = { readonly context?: string | undefined; readonly kubeconfig?: string | undefined };

/** One API server, and how to speak to it as whom. `options` holds TLS settings, headers, and an agent where a proxy is set. */
export type Login = { readonly server: string; readonly options: RequestOptions };

type Known = { readonly config: KubeConfig; readonly plugin: Plugin | null; readonly until: number };
/** A program that gives a login: the `exec` part of a kubeconfig's user. */
type Plugin = {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly apiVersion: string;
  /** Of its kubeconfig: a relative command starts there. */
  readonly folder: string;
};
type Credential = {
  /** Empty = none; the same for the pair. */
  readonly token: string;
  readonly cert: string;
  readonly key: string;
  /** Epoch ms. */
  readonly until: number;
};
const NO_CREDENTIAL: Credential = { token: "", cert: "", key: "", until: 0 };
type Raw = Readonly<Record<string, unknown>>;

const MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount";
/** Tokens and certificates in files are replaced while we run. */
const FRESH_MS = 60_000;
const OUTPUT_CAP = 256 * 1024;

/**
 * Finds the API server as kubectl does: the `kubeconfig` option, else `$KUBECONFIG`, else `~/.kube/config`, else the ServiceAccount of the
 * pod. Read when asked and again after a minute. Login programs are run by us, not by the library: with a limit, killed at its end, and
 * without any IMKIT key in their environment.
 * @throws ProviderError CONFIG, AUTHN or TIMEOUT, always `not_applied`; no text of kubeconfig, library or program in it
 */
export const kubeLogin = (given: KubePlace, tools: Pick<Tools, "configDir" | "env">, mounted = MOUNTED) => {
  let known: Known | null = null;
  let credential: Credential | null = null;

  const get = async (signal: AbortSignal): Promise<Login> => {
    if (known === null || monotonicMs() >= known.until) known = await load(given, tools, mounted);
    const { config, plugin } = known;
    const server = config.getCurrentCluster()?.server ?? "";
    if (plugin !== null && (credential === null || Date.now() >= credential.until))
      credential = await askPlugin(plugin, tools, signal);
    const options: RequestOptions = {};
    try {
      await config.applyToHTTPSOptions(options);
    } catch {
      throw unusable(
        "the login that the kubeconfig names cannot be used: a file is missing or not understood",
      );
    }
    if (!config.getCurrentCluster()?.proxyUrl) delete options.agent;
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(options.headers ?? {})) headers[name] = String(value).trim();
    const { token, cert, key } = credential ?? NO_CREDENTIAL;
    if (token !== "") headers["Authorization"] = `Bearer ${token}`;
    return { server, options: { ...options, headers, ...(cert === "" ? {} : { cert, key }) } };
  };

  /** The server refused this login: the next one is made anew. */
  const forget = (): boolean => {
    const was = known !== null;
    [known, credential] = [null, null];
    return was;
  };
  return { get, forget };
};

const load = async (
  given: KubePlace,
  { configDir, env }: Pick<Tools, "configDir" | "env">,
  mounted: string,
): Promise<Known> => {
  const library = await import("@kubernetes/client-node/dist/config.js");
  const home = env["HOME"] ?? "";
  const listed = (env["KUBECONFIG"] ?? "").split(delimiter).filter((path) => path !== "");
  const paths =
    given.kubeconfig !== undefined
      ? [resolvePath(given.kubeconfig, { configDir, env })]
      : listed.length > 0
        ? listed
        : home === ""
          ? []
          : [join(home, ".kube", "config")];
  const found: { readonly config: KubeConfig; readonly folder: string }[] = [];
  for (const path of paths) {
    const config = await readKubeconfig(new library.KubeConfig(), path);
    if (config !== null) found.push({ config, folder: dirname(resolve(path)) });
    else if (given.kubeconfig !== undefined) throw unusable(`there is no kubeconfig ${path}`);
  }
  const config = new library.KubeConfig();
  config.loadFromOptions(
    found.length > 0 ? merged(found.map((file) => file.config)) : inCluster(env, mounted),
  );
  if (given.context !== undefined) config.setCurrentContext(given.context);
  const context = config.getContexts().find(({ name }) => name === config.getCurrentContext());
  if (context === undefined) {
    const names = config.getContexts().map(({ name }) => name.slice(0, 80));
    throw unusable(
      `no context "${config.getCurrentContext() ?? ""}"; known: ${names.slice(0, 10).join(", ")}`,
    );
  }
  const cluster = config.getCluster(context.cluster);
  if (cluster === null) throw unusable(`context "${context.name}" names a cluster that is not there`);
  checkTransport(cluster);
  const user = config.getUser(context.user);
  const folder = found.find((file) => file.config.getUser(context.user) !== null)?.folder ?? configDir;
  const provider: unknown = user?.authProvider?.name;
  if (provider !== undefined && provider !== "tokenFile" && provider !== "oidc")
    throw unusable(
      "its user has an auth-provider that kubectl no longer knows, either: use a login program (exec)",
    );
  const plugin = pluginOf(user?.exec, folder);
  // Left in, the library would start it itself.
  if (user !== null) config.users = [{ ...user, exec: undefined }];
  return { config, plugin, until: monotonicMs() + FRESH_MS };
};

/** null = there is no such file. */
const readKubeconfig = async (config: KubeConfig, path: string): Promise<KubeConfig | null> => {
  try {
    const text = await readFile(path, "utf8");
    const { parse } = await import("yaml");
    const raw = parse(text) as Raw;
    const users = Array.isArray(raw["users"])
      ? raw["users"].map((user: Raw) => withTokenFile(user, path))
      : [];
    config.loadFromString(JSON.stringify({ ...raw, users }));
    config.makePathsAbsolute(dirname(resolve(path)));
    return config;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return null;
    throw unusable(`the kubeconfig ${path} cannot be read`);
  }
};

/** The library does not know `tokenFile` of kubectl; its name for the same is an auth provider. */
const withTokenFile = (entry: Raw, path: string): Raw => {
  const user = entry["user"] as Raw | null | undefined;
  if (typeof user?.["tokenFile"] !== "string") return entry;
  const tokenFile = resolve(dirname(path), user["tokenFile"]);
  return { ...entry, user: { ...user, "auth-provider": { name: "tokenFile", config: { tokenFile } } } };
};

/** As kubectl: the first file that names something wins. */
const merged = (configs: readonly KubeConfig[]) => ({
  clusters: firsts(configs.flatMap((config): Cluster[] => config.getClusters())),
  users: firsts(configs.flatMap((config): User[] => config.getUsers())),
  contexts: firsts(configs.flatMap((config): Context[] => config.getContexts())),
  currentContext: configs.map((config) => config.getCurrentContext()).find((name) => Boolean(name)) ?? "",
});
const firsts = <T extends { readonly name: string }>(all: readonly T[]): T[] =>
  all.filter((one, at) => all.findIndex(({ name }) => name === one.name) === at);

const inCluster = (env: Tools["env"], mounted: string) => {
  const [host, port] = [env["KUBERNETES_SERVICE_HOST"] ?? "", env["KUBERNETES_SERVICE_PORT"] ?? ""];
  if (host === "" || port === "")
    throw unusable("there is no kubeconfig, and this is no pod with a ServiceAccount");
  const server = `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
  const config = { tokenFile: join(mounted, "token") };
  return {
    clusters: [{ name: "in-cluster", caFile: join(mounted, "ca.crt"), server, skipTLSVerify: false }],
    users: [{ name: "in-cluster", authProvider: { name: "tokenFile", config } }],
    contexts: [{ name: "in-cluster", cluster: "in-cluster", user: "in-cluster" }],
    currentContext: "in-cluster",
  };
};

/** The key is for a server that was verified; only on this machine may it be any. */
const checkTransport = ({ server, skipTLSVerify }: Cluster): void => {
  const url = URL.parse(server);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw unusable("the server's address is no https: URL");
  const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (loopback) return;
  if (url.protocol === "http:")
    throw unusable("the server's address is http:, which would show the key to all");
  if (skipTLSVerify)
    throw unusable("insecure-skip-tls-verify is set: name certificate-authority in the kubeconfig instead");
};

const pluginOf = (exec: unknown, folder: string): Plugin | null => {
  if (typeof exec !== "object" || exec === null) return null;
  const { command, args, env, apiVersion } = exec as Raw;
  if (typeof command !== "string" || command === "") throw unusable("a login program without a command");
  const pairs = Array.isArray(env) ? (env as Raw[]) : [];
  return {
    command,
    args: Array.isArray(args) ? args.map(String) : [],
    env: Object.fromEntries(pairs.map(({ name, value }) => [String(name), String(value)])),
    apiVersion: typeof apiVersion === "string" ? apiVersion : "client.authentication.k8s.io/v1",
    folder,
  };
};

const askPlugin = async (
  plugin: Plugin,
  tools: Pick<Tools, "env">,
  signal: AbortSignal,
): Promise<Credential> => {
  const { command, args, apiVersion, folder } = plugin;
  const info = JSON.stringify({ apiVersion, kind: "ExecCredential", spec: { interactive: false } });
  const ended = await runProgram(
    [command, ...args],
    { env: tools.env, configDir: folder },
    { signal, limitMs: 20_000, keep: OUTPUT_CAP, env: { ...plugin.env, KUBERNETES_EXEC_INFO: info } },
  );
  const byHand = `the kubeconfig's login program ${command.slice(0, 200)}`;
  if (ended.how === "missing") throw unusable(`${byHand} is not there`);
  if (ended.how === "late") throw refused("TIMEOUT", `${byHand} did not end in time`);
  if (ended.how !== "exit" || ended.status !== 0) throw refused("AUTHN", `${byHand} failed; run it by hand`);
  return credentialIn(ended.output.toString("utf8"), byHand);
};

const credentialIn = (text: string, byHand: string): Credential => {
  const unclear = refused("AUTHN", `${byHand} did not print a login`);
  let status: Raw;
  try {
    status = (JSON.parse(text) as { readonly status: Raw }).status;
  } catch {
    throw unclear;
  }
  const word = (name: string): string => {
    const value = status?.[name];
    return typeof value === "string" ? value.trim() : "";
  };
  const [token, cert, key] = [word("token"), word("clientCertificateData"), word("clientKeyData")];
  if (token === "" && (cert === "" || key === "")) throw unclear;
  const expires = Date.parse(word("expirationTimestamp"));
  return { token, cert, key, until: Number.isNaN(expires) ? Number.POSITIVE_INFINITY : expires - 10_000 };
};

const unusable = (hint: string): ProviderError => refused("CONFIG", hint);
