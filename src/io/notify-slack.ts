import type { Message } from "../ports.ts";

/** Slack takes at most 3,000 characters in one block. */
const MOST = 2_900;
const MARKS: Readonly<Record<string, string>> = {
  done: "✅",
  failed: "🔴",
  refused: "🔴",
  blackout: "🔴",
  emergency: "🔴",
  "wrong-key-revoked": "🔴",
};

/** Slack's three control characters: `<!channel>`, links and mentions are nothing but text then. */
const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const cut = (text: string): string => (text.length > MOST ? `${text.slice(0, MOST)}…` : text);

/** The body for an incoming webhook: plain text blocks, in which nothing is a link, a mention or a style. */
export const slackBody = ({ type, text, state, owners, rotation, head, next }: Message): string => {
  const steps = next.map(
    (step, i) => `${i + 1}. ${step.text}${step.command === null ? "" : `\n    ${step.command}`}`,
  );
  const facts = [
    `state ${state}`,
    ...(rotation === null ? [] : [`rotation ${rotation}`]),
    ...(head === null ? [] : [`ledger ${head}`]),
    ...(owners.length === 0 ? [] : [`owners ${owners.join(", ")}`]),
  ];
  const title = `${MARKS[type] ?? "🔑"} ${text}`;
  const blocks = [title, ...(steps.length > 0 ? [steps.join("\n")] : []), facts.join("  ·  ")];
  return JSON.stringify({
    text: escaped(cut(title)),
    mrkdwn: false,
    unfurl_links: false,
    unfurl_media: false,
    blocks: blocks.map((block) => ({
      type: "section",
      text: { type: "plain_text", emoji: false, text: escaped(cut(block)) },
    })),
  });
};
