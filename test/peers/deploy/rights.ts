import { describe, expect, it } from "vitest";
import { kustomize, OVERLAYS, overlayDir, type Rule } from "../../deploy/manifests.ts";
import { eventually } from "../kubernetes.ts";
import { type Deploy, ROTATOR } from "./world.ts";

/** Of every ServiceAccount that the manifests make, by namespace: what `kubectl auth can-i --list` shows beyond what anybody may do. */
const MAY: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  "imkit-rotator/imkit-rotator": {
    chat: [
      "deployments.apps [] [api] [get patch]",
      "secrets [] [imkit-key-inbox] [get patch]",
      "secrets [] [imkit-secrets] [get patch]",
    ],
    "imkit-ledger": ["configmaps [] [] [create get]"],
    "imkit-rotator": ["secrets [] [imkit-rotator-escrow-chat-prod] [get patch]"],
  },
};

/** All that `doctor` finds when one verb of one Role is taken away. A key that stays in the inbox is a warning, for it stops nothing. */
const MISSED: Readonly<Record<string, readonly string[]>> = {
  "chat/imkit-rotator-inbox get secrets/imkit-key-inbox": ["intake fail"],
  "chat/imkit-rotator-inbox patch secrets/imkit-key-inbox": ["intake.may-patch warn"],
  "chat/imkit-rotator-rollout get deployments/api": ["rollout.may-get fail"],
  "chat/imkit-rotator-rollout patch deployments/api": ["rollout.may-patch fail"],
  "chat/imkit-rotator-secret get secrets/imkit-secrets": ["store.may-get fail"],
  "chat/imkit-rotator-secret patch secrets/imkit-secrets": ["store.may-patch fail"],
  "imkit-ledger/imkit-rotator-ledger create configmaps": ["ledger.may-create fail"],
  "imkit-ledger/imkit-rotator-ledger get configmaps": ["ledger fail", "ledger.may-get fail"],
  "imkit-rotator/imkit-rotator-escrow get secrets/imkit-rotator-escrow-chat-prod": [
    "ledger fail",
    "escrow.may-get fail",
  ],
  "imkit-rotator/imkit-rotator-escrow patch secrets/imkit-rotator-escrow-chat-prod": [
    "escrow.may-patch fail",
  ],
};

/** Where the manifests put something, and where they should not. */
const NAMESPACES = ["chat", "imkit-ledger", "imkit-rotator", "default", "kube-system"] as const;

const roles = OVERLAYS.flatMap((overlay) => kustomize(overlayDir(overlay))).filter(
  ({ kind, metadata }, nth, all) =>
    kind.endsWith("Role") &&
    all.findIndex((m) => m.kind === kind && m.metadata.name === metadata.name) === nth,
);
const verbsOf = ({ metadata: { namespace, name }, rules = [] }: (typeof roles)[number]) =>
  rules.flatMap(({ verbs, resources, resourceNames = [""] }, rule) =>
    verbs.flatMap((verb) =>
      resources.flatMap((resource) =>
        resourceNames.map((one) => {
          const what = `${resource}${one === "" ? "" : `/${one}`}`;
          return {
            title: `${namespace}/${name} ${verb} ${what}`,
            namespace: namespace ?? "",
            name,
            rule,
            rules,
            verb,
            what,
          };
        }),
      ),
    ),
  );
const without = (rules: readonly Rule[], nth: number, verb: string): readonly Rule[] =>
  rules
    .map((rule, at) => (at === nth ? { ...rule, verbs: rule.verbs.filter((one) => one !== verb) } : rule))
    .filter(({ verbs }) => verbs.length > 0);

/** Registers the tests of what the manifests let the rotator do. Nothing was rotated yet. */
export const rightsTests = (world: () => Deploy): void => {
  const listed = (namespace: string, account: string): readonly string[] =>
    world()
      .must([
        "auth",
        "can-i",
        "--list",
        "-n",
        namespace,
        `--as=system:serviceaccount:${account.replace("/", ":")}`,
      ])
      .split("\n")
      .slice(1)
      .map((line) => line.replaceAll(/\s+/g, " ").trim())
      .filter((line) => line !== "")
      .toSorted();
  describe("rights", () => {
    it("every ServiceAccount that is made may do what the table says, here and elsewhere, and nothing else", () => {
      const made = OVERLAYS.flatMap((overlay) => kustomize(overlayDir(overlay)))
        .filter(({ kind }) => kind === "ServiceAccount")
        .map(({ metadata: { namespace, name } }) => `${namespace}/${name}`);
      expect([...new Set(made)]).toEqual(Object.keys(MAY));
      for (const namespace of NAMESPACES) {
        const anybody = listed(namespace, "default/default");
        // So that a line is not lost on both sides.
        expect(anybody.some((line) => line.startsWith("selfsubjectaccessreviews"))).toBe(true);
        expect(anybody.filter((line) => /^(secrets|configmaps|pods|deployments|\*)/.test(line))).toEqual([]);
        for (const [account, table] of Object.entries(MAY)) {
          const more = listed(namespace, account).filter((line) => !anybody.includes(line));
          expect({ namespace, account, more }).toEqual({ namespace, account, more: table[namespace] ?? [] });
        }
        // Nobody else gets something by the way: not who runs in one of these namespaces without a name.
        for (const other of ["chat", "imkit-ledger", "imkit-rotator"])
          expect(listed(namespace, `${other}/default`)).toEqual(anybody);
      }
    });

    it("no Secret can be listed or watched, nor any but the named ones be read", () => {
      const { kubectl, mayRotator } = world();
      for (const verb of ["list", "watch"]) {
        const anywhere = kubectl(["auth", "can-i", verb, "secrets", "-A", `--as=${ROTATOR}`]);
        expect(anywhere, verb).toMatchObject({ status: 1, stdout: "no\n" });
        for (const namespace of NAMESPACES) expect(mayRotator(verb, "secrets", namespace), verb).toBe(false);
      }
      for (const [namespace, name] of [
        ["imkit-rotator", "imkit-rotator-identity"],
        ["chat", "another"],
        ["imkit-ledger", "any"],
      ] as const)
        expect(mayRotator("get", `secrets/${name}`, namespace)).toBe(false);
    });

    it("the table of what doctor misses holds every verb of every Role", () => {
      expect(
        roles
          .flatMap(verbsOf)
          .map(({ title }) => title)
          .toSorted(),
      ).toEqual(Object.keys(MISSED).toSorted());
    });

    const notOk = async (): Promise<{ readonly code: number; readonly found: readonly string[] }> => {
      const { code, stdout } = await (await world().asPod("cronjob")).run({ args: ["doctor", "--json"] });
      const { checks } = JSON.parse(stdout) as {
        readonly checks: readonly { readonly id: string; readonly status: string }[];
      };
      return {
        code,
        found: checks.filter(({ status }) => status !== "ok").map(({ id, status }) => `${id} ${status}`),
      };
    };

    it("with all of them doctor finds nothing to remark, of the escrow neither", async () => {
      expect(await notOk()).toEqual({ code: 0, found: [] });
    });

    it.each(roles.flatMap(verbsOf).map((one) => [one.title, one] as const))(
      "without %s doctor says so",
      async (title, { namespace, name, rule, rules, verb, what }) => {
        const { must, mayRotator } = world();
        const role = ["-n", namespace, "patch", "role", name, "--type=merge", "-p"];
        const give = (some: readonly Rule[]) => must([...role, JSON.stringify({ rules: some })]);
        give(without(rules, rule, verb));
        try {
          await eventually(`no right to ${verb} ${what}`, async () => !mayRotator(verb, what, namespace));
          const { code, found } = await notOk();
          expect(found).toEqual(MISSED[title]);
          expect(code).toBe(found.some((one) => one.endsWith(" fail")) ? 5 : 0);
        } finally {
          give(rules);
          await eventually(`the right to ${verb} ${what}`, async () => mayRotator(verb, what, namespace));
        }
      },
    );
  });
};
