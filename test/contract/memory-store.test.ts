import { expect, it } from "vitest";
import { memoryStore } from "../kit/memory-store.ts";
import { storeContract } from "./store.ts";

for (const staging of [false, true]) {
  storeContract({
    it,
    expect,
    name: staging ? "memory with a slot" : "memory",
    open: async () => {
      const store = memoryStore("memory:a", { staging });
      return {
        store,
        put: async (secret) => store.put(secret),
        breakIt: async () => {
          store.fault = () => ({ code: "UNAVAILABLE", outcome: "not_applied" });
        },
        writes: async () => store.writes(),
      };
    },
  });
}
