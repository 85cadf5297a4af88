import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openKube } from "../../providers/kubernetes.ts";
import { type KubePlace, kubeLogin } from "../../providers/kubernetes-login.ts";
import { ProviderError } from "../../src/core/errors.ts";
import { type FakeKube, kubeServer } from "../kit/kube-server.ts";
import { tempDir } from "../kit/provider-tools.ts";

const soon = () => AbortSignal.timeout(10_000);
const CANARY = "canary-0d5c1b7e-in-a-login";

let dir: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
});
afterEach(async () => await remove());

type Env = Record<string, string | undefined>;
const login = (options: KubePlace = {}, env: Env = {}, mounted = join(dir, "mounted")) =>
  kubeLogin(options, { configDir: dir, env: { PATH: process.env["PATH"], HOME: dir, ...env } }, mounted).get(
    soon(),
  );

const kubeconfig = async (name: string, parts: Record<string, unknown>): Promise<string> => {
  const whole = {
    clusters: [{ name: "c", cluster: { server: "https://kube.example:6443" } }],
    users: [{ name: "u", user: { token: CANARY } }],
    contexts: [{ name: "prod", context: { cluster: "c", user: "u" } }],
    "current-context": "prod",
    ...parts,
  };
  const path = join(dir, name);
  await writeFile(path, JSON.stringify(whole));
  return path;
};
const refusal = async (call: Promise<unknown>) => {
  const error = await call.then(
    () => null,
    (caught: unknown) => caught,
  );
  if (!(error instanceof ProviderError)) throw new Error("this call had to be refused, and was not");
  expect(inspect(error, { depth: 8, showHidden: true })).not.toContain(CANARY);
  expect([error.outcome, error.cause]).toEqual(["not_applied", undefined]);
  return { code: error.code, hint: error.hint };
};
const bearer = async (call: ReturnType<typeof login>) =>
  (await call).options.headers as Record<string, string> | undefined;

describe("where the API server is", () => {
  test("the option before $KUBECONFIG before ~/.kube/config before the pod's ServiceAccount", async () => {
    await mkdir(join(dir, "mounted"));
    await writeFile(join(dir, "mounted", "token"), "of-the-pod");
    await writeFile(join(dir, "mounted", "ca.crt"), "authority");
    const pod = { KUBERNETES_SERVICE_HOST: "10.0.0.1", KUBERNETES_SERVICE_PORT: "443" };
    const inPod = await login({}, pod);
    expect([inPod.server, inPod.options.headers]).toEqual([
      "https://10.0.0.1:443",
      { Authorization: "Bearer of-the-pod" },
    ]);
    expect(String(inPod.options.ca)).toBe("authority");
    expect((await login({}, { ...pod, KUBERNETES_SERVICE_HOST: "fd00::1" })).server).toBe(
      "https://[fd00::1]:443",
    );

    const at = (name: string, server: string) =>
      kubeconfig(name, { clusters: [{ name: "c", cluster: { server } }] });
    await mkdir(join(dir, ".kube"));
    await at(".kube/config", "https://home.example");
    expect((await login({}, pod)).server).toBe("https://home.example");
    const listed = await at("listed", "https://listed.example");
    expect((await login({}, { ...pod, KUBECONFIG: listed })).server).toBe("https://listed.example");
    await at("named", "https://named.example");
    expect((await login({ kubeconfig: "named" }, { ...pod, KUBECONFIG: listed })).server).toBe(
      "https://named.example",
    );
  });

  test("several files are one, the first to name something wins, and a missing one is passed over", async () => {
    const first = await kubeconfig("first", { "current-context": "" });
    const second = await kubeconfig("second", {
      clusters: [
        { name: "c", cluster: { server: "https://never.example" } },
        { name: "d", cluster: { server: "https://second.example" } },
      ],
      contexts: [{ name: "stage", context: { cluster: "d", user: "u" } }],
      "current-context": "stage",
    });
    const env = { KUBECONFIG: `${join(dir, "none")}:${first}:${second}` };
    expect((await login({}, env)).server).toBe("https://second.example");
    expect((await login({ context: "prod" }, env)).server).toBe("https://kube.example:6443");
  });

  test.each([
    ["no such context", {}, { context: "elsewhere" }, 'no context "elsewhere"; known: prod'],
    ["no such cluster", { clusters: [] }, {}, "names a cluster that is not there"],
    [
      "plain HTTP",
      { clusters: [{ name: "c", cluster: { server: "http://kube.example" } }] },
      {},
      "show the key",
    ],
    [
      "an unverified server",
      {
        clusters: [{ name: "c", cluster: { server: "https://k.example", "insecure-skip-tls-verify": true } }],
      },
      {},
      "insecure-skip-tls-verify",
    ],
    ["no address", { clusters: [{ name: "c", cluster: { server: "kube" } }] }, {}, "no https: URL"],
    [
      "no certificate",
      { users: [{ name: "u", user: { "client-certificate": "gone.crt" } }] },
      {},
      "a file is missing",
    ],
    [
      "a login of old",
      {
        users: [
          { name: "u", user: { "auth-provider": { name: "gcp", config: { "cmd-path": "/bin/true" } } } },
        ],
      },
      {},
      "auth-provider",
    ],
    ["no list", { contexts: 5 }, {}, "no context"],
  ])("%s is said", async (_, parts, options, words) => {
    await kubeconfig("kubeconfig", parts);
    const { code, hint } = await refusal(login({ kubeconfig: "kubeconfig", ...options }));
    expect(code).toBe("CONFIG");
    expect(hint).toContain(words);
  });

  test("a kubeconfig that is missing, torn or a folder is named; what stands in it is not shown", async () => {
    await writeFile(join(dir, "torn"), `users: [{name: u, user: {token: ${CANARY}`);
    for (const name of ["none", "torn", "."]) {
      const { code, hint } = await refusal(login({ kubeconfig: name }));
      expect(code).toBe("CONFIG");
      expect(hint).toContain(dir);
    }
    expect((await refusal(login())).hint).toContain("no pod");
  });

  test("a token in a file, as kubectl knows it: from the kubeconfig's folder, without its line break", async () => {
    await mkdir(join(dir, "sub"));
    await writeFile(join(dir, "sub", "token"), "in-a-file\n");
    await kubeconfig("sub/kubeconfig", { users: [{ name: "u", user: { tokenFile: "token" } }] });
    expect(await bearer(login({ kubeconfig: "sub/kubeconfig" }))).toEqual({
      Authorization: "Bearer in-a-file",
    });
  });
});

describe("a login program", () => {
  let kube: FakeKube;
  beforeEach(async () => {
    kube = await kubeServer();
  });
  afterEach(async () => await kube.close());

  const program = async (script: string, exec: Record<string, unknown> = {}): Promise<void> => {
    await writeFile(join(dir, "login.sh"), `#!/bin/sh\necho x >> calls\n${script}\n`);
    await chmod(join(dir, "login.sh"), 0o755);
    const apiVersion = "client.authentication.k8s.io/v1";
    await kubeconfig("kubeconfig", {
      clusters: [{ name: "c", cluster: { server: kube.url, "insecure-skip-tls-verify": true } }],
      users: [{ name: "u", user: { exec: { apiVersion, command: "./login.sh", args: ["eks"], ...exec } } }],
    });
  };
  const credential = (status: Record<string, unknown>) =>
    `echo '${JSON.stringify({ kind: "ExecCredential", status })}'`;
  const calls = async () => (await readFile(join(dir, "calls"), "utf8")).trim().split("\n").length;
  const opened = (env: Env = {}) =>
    openKube({ kubeconfig: "kubeconfig" }, { configDir: dir, env: { PATH: process.env["PATH"], ...env } });
  const get = { method: "GET", path: "/api/v1/namespaces/chat/secrets/x" } as const;

  test("is asked once, without IMKIT keys, told that nobody can type, and asked again when refused", async () => {
    await program(`env > seen; echo "$@" > args; ${credential({ token: kube.token })}`, {
      env: [{ name: "AWS_PROFILE", value: "chat" }],
    });
    const api = opened({ IMKIT_API_KEY: CANARY });
    expect((await api.call(get, soon())).status).toBe(404);
    expect((await api.call(get, soon())).status).toBe(404);
    expect(await calls()).toBe(1);
    const seen = await readFile(join(dir, "seen"), "utf8");
    expect(seen).toContain("AWS_PROFILE=chat");
    expect(seen).toContain('"interactive":false');
    expect(seen).not.toContain(CANARY);
    expect(await readFile(join(dir, "args"), "utf8")).toBe("eks\n");
    await program(credential({ token: "renewed" }));
    kube.token = "renewed";
    expect((await api.call(get, soon())).status).toBe(404);
    expect(await calls()).toBe(2);
  });

  test("an expired login is not used again", async () => {
    await program(credential({ token: kube.token, expirationTimestamp: "2020-01-01T00:00:00Z" }));
    const api = opened();
    await api.call(get, soon());
    await api.call(get, soon());
    expect(await calls()).toBe(2);
  });

  test("its certificate is used", async () => {
    await program(credential({ clientCertificateData: "CERT", clientKeyData: "KEY" }));
    const { options } = await login({ kubeconfig: "kubeconfig" });
    expect([options.cert, options.key]).toEqual(["CERT", "KEY"]);
  });

  test.each([
    ["fails", `echo ${CANARY} >&2; exit 1`, "AUTHN"],
    ["prints no JSON", `echo ${CANARY}`, "AUTHN"],
    ["prints another thing", `echo '{"status":null,"token":"${CANARY}"}'`, "AUTHN"],
    ["prints half a pair", credential({ clientCertificateData: CANARY }), "AUTHN"],
    ["prints a number", credential({ token: 5 }), "AUTHN"],
    ["prints without end", `while :; do echo ${CANARY}; done`, "AUTHN"],
  ])("that %s is no login", async (_, script, code) => {
    await program(script);
    expect((await refusal(opened().call(get, soon()))).code).toBe(code);
    expect(kube.requests).toEqual([]);
  });

  test("that is missing is named; that never ends is ended with the call", async () => {
    await program("");
    await kubeconfig("kubeconfig", {
      users: [{ name: "u", user: { exec: { command: "no-such-program" } } }],
    });
    expect(await refusal(opened().call(get, soon()))).toMatchObject({
      code: "CONFIG",
      hint: expect.stringContaining("no-such-program"),
    });
    await program("exec sleep 600");
    const began = performance.now();
    expect((await refusal(opened().call(get, AbortSignal.timeout(100)))).code).toBe("TIMEOUT");
    expect(performance.now() - began).toBeLessThan(1_500);
  });
});
