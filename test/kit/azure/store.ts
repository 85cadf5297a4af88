import type { Tools } from "../../../providers/kit.ts";
import type { Config } from "../../../providers/stores/azure-key-vault.ts";
import { toolsIn } from "../provider-tools.ts";
import type { VaultServer } from "./server.ts";

/** The config of a store on the stand-in, and tools that hand out its token. */
export const vaultStore = (
  server: Pick<VaultServer, "url" | "caFile" | "token">,
  secret: string,
  more: Partial<Config> = {},
): { readonly config: Config; readonly tools: Tools } => ({
  config: {
    vaultUrl: server.url,
    secret,
    create: false,
    recover: false,
    caFile: server.caFile,
    verifyChallengeResource: false,
    token: { valueFrom: { env: "VAULT_TOKEN" } },
    ...more,
  },
  tools: { ...toolsIn("/").tools, valueOf: async () => server.token },
});
