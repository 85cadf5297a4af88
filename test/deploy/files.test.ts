import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import { parse as parseYaml } from "yaml";
import { parse } from "../../src/shell/args.ts";
import { openMetrics } from "../../src/shell/daemon/metrics.ts";
import { DEPLOY, filesOf } from "./manifests.ts";

const read = (name: string): string => readFileSync(join(DEPLOY, name), "utf8");

describe("systemd", () => {
  const units = [...filesOf(".service"), ...filesOf(".timer")];
  type Unit = readonly (readonly [string, string])[];
  const unit = (file: string): Unit =>
    read(file)
      .split("\n")
      .filter((line) => /^[A-Za-z]+=/.test(line))
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]);
  const all = (of: Unit, key: string) => of.filter(([name]) => name === key).map(([, value]) => value);
  const PROGRAM = "/opt/imkit-rotator/bin/imkit-rotator.cjs";

  it("there are a daemon, a tick with its timer, and the emergency", () => {
    expect(units).toEqual([
      "systemd/imkit-rotator-emergency@.service",
      "systemd/imkit-rotator-tick.service",
      "systemd/imkit-rotator.service",
      "systemd/imkit-rotator-tick.timer",
    ]);
  });

  it.each(units.filter((file) => file.endsWith(".service")))(
    "%s runs a command that the program has, with few rights",
    (file) => {
      const u = unit(file);
      const [line = "", ...more] = all(u, "ExecStart");
      expect(more).toEqual([]);
      const [program, ...args] = line.split(" ");
      expect(program).toBe(PROGRAM);
      expect(parse(args.map((word) => word.replace("%i", "chat-prod"))).job).not.toBeNull();
      expect(Object.fromEntries(u)).toMatchObject({
        User: "imkit-rotator",
        NoNewPrivileges: "yes",
        CapabilityBoundingSet: "",
        ProtectSystem: "strict",
        ProtectHome: "yes",
        PrivateTmp: "yes",
        PrivateDevices: "yes",
        RestrictAddressFamilies: "AF_INET AF_INET6 AF_UNIX",
        SystemCallFilter: "@system-service",
        UMask: "0077",
        LimitCORE: "0",
        StateDirectory: "imkit-rotator",
        StateDirectoryMode: "0700",
        LoadCredential: "escrow-identity:/etc/imkit-rotator/escrow-identity.txt",
      });
      expect(all(u, "SuccessExitStatus").join(" ")).toContain("143");
      expect(Number(Object.fromEntries(u)["TimeoutStopSec"])).toBeGreaterThan(60);
      // A secret in a unit can be read by everybody.
      expect(all(u, "Environment")).toEqual([
        "IMKIT_ROTATOR_CONFIG=/etc/imkit-rotator/imkit-rotator.config.yaml",
      ]);
      // It would end the program at its first compiled function.
      expect(all(u, "MemoryDenyWriteExecute")).toEqual([]);
    },
  );

  const hasAnalyze = spawnSync("systemd-analyze", ["--version"]).status === 0;
  test.skipIf(!hasAnalyze)("systemd itself finds nothing wrong with them", () => {
    const dir = mkdtempSync(join(tmpdir(), "imkit-rotator-units-"));
    try {
      const names = units.map((file) => file.slice("systemd/".length));
      for (const name of names)
        writeFileSync(join(dir, name), read(`systemd/${name}`).replaceAll(PROGRAM, "/bin/true"));
      const files = names.map((name) => join(dir, name.replace("@.", "@chat-prod.")));
      for (const [i, name] of names.entries())
        if (name.includes("@.")) writeFileSync(files[i] ?? "", readFileSync(join(dir, name)));
      const { status, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", ...files], {
        encoding: "utf8",
      });
      expect(
        stderr.split("\n").filter((line) => line.includes(dir) || line.startsWith("imkit-rotator")),
      ).toEqual([]);
      expect(status).toBe(0);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});

describe("compose.yaml", () => {
  type Service = Readonly<Record<string, unknown>> & {
    readonly command: readonly string[];
    readonly volumes: readonly { readonly source: string; readonly target: string }[];
    readonly secrets: readonly string[];
    readonly ports: readonly string[];
  };
  const file = parseYaml(read("compose.yaml")) as {
    readonly services: Readonly<Record<string, Service>>;
    readonly secrets: Readonly<Record<string, unknown>>;
    readonly volumes: Readonly<Record<string, unknown>>;
  };

  it("runs serve as nobody, on a root that is read only, listening for this host alone", () => {
    const { rotator } = file.services;
    expect(Object.keys(file.services)).toEqual(["rotator"]);
    expect(rotator).toMatchObject({
      user: "65532:65532",
      read_only: true,
      cap_drop: ["ALL"],
      security_opt: ["no-new-privileges:true"],
      ulimits: { core: 0 },
      build: { dockerfile: "deploy/Dockerfile", context: ".." },
    });
    expect(parse(rotator?.command ?? []).job).not.toBeNull();
    for (const port of rotator?.ports ?? []) expect(port).toMatch(/^127\.0\.0\.1:/);
    for (const name of rotator?.secrets ?? []) expect(file.secrets).toHaveProperty(name);
    expect(rotator?.volumes.map(({ target }) => target)).toContain("/var/lib/imkit-rotator");
    expect(JSON.stringify(rotator)).not.toContain("docker.sock");
  });
});

describe("alert rules", () => {
  type Alert = {
    readonly alert: string;
    readonly expr: string;
    readonly labels: { readonly severity: string };
    readonly annotations: { readonly summary: string; readonly description: string };
  };
  const { groups } = parseYaml(read("prometheus/alerts.yaml")) as {
    readonly groups: readonly { readonly rules: readonly Alert[] }[];
  };
  const alerts = groups.flatMap(({ rules }) => rules);

  it("there is one for each way to come to harm", () => {
    const all = [
      "Blackout",
      "WrongKeyRevoked",
      "RotationFailed",
      "WaitingTooLong",
      "OldKeyStillAccepted",
      "KeyOverdue",
      "StoreDrift",
    ];
    const more = [
      "UsageAnomaly",
      "LedgerUnreadable",
      "LedgerWentBack",
      "NotToldAnybody",
      "RotatorSilent",
      "RotatorAbsent",
      "ConfigNotLoaded",
    ];
    expect(alerts.map(({ alert }) => alert)).toEqual([...all, ...more].map((name) => `Imkit${name}`));
  });

  it("each asks for metrics and states that the daemon has", async () => {
    const metrics = await openMetrics(["demo"], "1", () => 1_000);
    const counts = { users: 1, rooms: 1, totalRooms: 1, messages: 1, peakConnections: 1 };
    metrics.set("demo", {
      phase: "idle",
      ended: null,
      freshMs: 0,
      dueMs: 1,
      waitingMs: null,
      entries: 1,
      stores: new Map([["env", true]]),
      isOldAccepted: false,
      verifiedMs: 1,
      usage: { counts, atMs: 1 },
    });
    metrics.passed(1, 1_000);
    const { body } = await metrics.text();
    for (const { alert, expr, labels, annotations } of alerts) {
      const used = [...expr.matchAll(/\b(imkit_rotator_\w+)(\{[^}]*\})?/g)];
      expect(used.length, alert).toBeGreaterThan(0);
      for (const [, name = "", selector = ""] of used) {
        expect(body, `${alert}: ${name}`).toMatch(new RegExp(`^${name}[{ ]`, "m"));
        for (const [, label = "", sign, value = ""] of selector.matchAll(/(\w+)(=~?)"([^"]*)"/g))
          for (const one of sign === "=" ? [value] : value.split("|"))
            expect(body, `${alert}: ${name}{${label}="${one}"}`).toMatch(
              new RegExp(`^${name}\\{.*${label}="${one}"`, "m"),
            );
      }
      expect(["warning", "critical"]).toContain(labels.severity);
      expect(`${annotations.summary}${annotations.description}`.length).toBeGreaterThan(40);
    }
  });
});

describe("the pages", () => {
  const pages = filesOf(".md");

  it.each(pages)("%s: every command of the program that it names is one, every file is there", (page) => {
    const text = read(page);
    for (const [, command = ""] of text.matchAll(/`(imkit-rotator [^`]*)`/g)) {
      const words = command.replaceAll(/\s+/g, " ").replace(/[[\]]/g, "").split(" ").slice(1);
      expect(() => parse(words), command).not.toThrow();
    }
    for (const [, line = ""] of text.matchAll(/^\s*(imkit-rotator .*)$/gm))
      expect(
        () =>
          parse(
            line
              .replace(/ [>#].*$/, "")
              .split(" ")
              .slice(1),
          ),
        line,
      ).not.toThrow();
    for (const [, target = ""] of text.matchAll(/\]\(([\w./-]+\.md)\)/g)) expect(pages).toContain(target);
    for (const [, path = ""] of text.matchAll(/`((?:kubernetes|systemd|policies|prometheus)\/[\w./@-]*)`/g))
      expect(existsSync(join(DEPLOY, path)), path).toBe(true);
    for (const [, path = ""] of text.matchAll(/\b(deploy\/[\w./-]+[\w])/g))
      expect(existsSync(join(DEPLOY, "..", path)), path).toBe(true);
  });
});
