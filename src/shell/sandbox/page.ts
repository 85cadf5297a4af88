import { createHash } from "node:crypto";
import type { KeyInfo } from "./state.ts";

const STYLE = `
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--ground:#f3f5f8;--blue:#0a5bd3;--red:#b3261e;--on:#fff;--note:#fff4d6}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a6adb8;--line:#3a4049;--paper:#1c2027;--ground:#121519;--blue:#8ab8ff;--red:#ff9a92;--on:#10131a;--note:#3a3113}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:1rem/1.55 system-ui,"Noto Sans TC","PingFang TC","Microsoft JhengHei",sans-serif}
main{max-width:44rem;margin:0 auto;padding:1.25rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.25;margin:.25rem 0 1rem}
h2{font-size:1.15rem;margin:0 0 .5rem}
p{margin:.35rem 0}
section,li{background:var(--paper);border:1px solid var(--line);border-radius:.6rem;padding:1rem;margin:0 0 1rem}
ul{list-style:none;margin:.75rem 0 0;padding:0}
li{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;justify-content:space-between;margin:0 0 .5rem;padding:.6rem .8rem}
.note{background:var(--note);border-radius:.6rem;padding:.6rem .9rem;margin:0 0 1rem;font-size:.9rem}
.soft,[lang=zh-Hant].soft{color:var(--soft);font-size:.92rem}
.state{font-weight:600}.dead{color:var(--soft);font-weight:400}
button,a.button{display:inline-block;font:inherit;font-weight:600;line-height:1.3;min-height:2.75rem;padding:.65rem 1rem;border-radius:.5rem;border:1px solid transparent;background:var(--blue);color:var(--on);text-decoration:none;cursor:pointer}
button.danger{background:var(--red)}
button.quiet,a.quiet{background:transparent;border-color:currentColor;color:var(--ink)}
button.quiet.danger{color:var(--red)}
.acts{display:flex;flex-wrap:wrap;gap:.6rem;margin-top:1rem}
:focus-visible{outline:3px solid var(--blue);outline-offset:2px}
label{display:block;font-weight:600;margin:.75rem 0 .3rem}
textarea{width:100%;font:1rem/1.5 ui-monospace,monospace;padding:.6rem;border:2px solid var(--blue);border-radius:.5rem;background:var(--paper);color:var(--ink);resize:none;overflow-wrap:anywhere;word-break:break-all}
a{color:var(--blue)}
h1 span,h2 span,button span,a span{display:inline-block}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
`;

/** Nothing is loaded, nothing runs, nobody may frame it; forms go back to this server only. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/html; charset=utf-8",
  "content-security-policy": [
    "default-src 'none'",
    `style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'`,
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "cache-control": "no-store",
  // Not `no-referrer`: with it browsers send `Origin: null` with our own forms.
  "referrer-policy": "same-origin",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

const escape = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

const zh = (text: string): string => `<span lang="zh-Hant">${text}</span>`;
const both = (en: string, hant: string): string => `${en} · ${zh(hant)}`;
const say = (en: string, hant: string): string => `<p>${en}</p><p class="soft" lang="zh-Hant">${hant}</p>`;

const two = (n: number): string => `${n}`.padStart(2, "0");
const clockTime = (ms: number): string => {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
};
const dayOf = (ms: number): string => {
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
};
const time = (ms: number, now: number): string => {
  const text = dayOf(ms) === dayOf(now) ? clockTime(ms) : `${dayOf(ms)} ${clockTime(ms)}`;
  return `<time datetime="${new Date(ms).toISOString()}">${text}</time>`;
};

const document = (title: string, app: string, body: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escape(title)} - ${escape(app)} - sandbox</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<p class="note">Sandbox: a stand-in for the IMKIT Dashboard on this computer. Its keys open nothing else and are gone when it stops.<br>
${zh("沙盒：本機上的 IMKIT Dashboard 替身，金鑰僅在此有效，停止後即消失。")}</p>
${body}
</main>
</body>
</html>
`;

const back = `<a class="button quiet" href="/dashboard">${both("Back to API Settings", "返回 API 設定")}</a>`;

const keyRow = (key: KeyInfo, now: number): string => {
  const name = `<span>${both("issued", "建立於")} ${time(key.issuedAt, now)}, id&nbsp;#${key.id}</span>`;
  if (key.revokedAt !== null) {
    const when = time(key.revokedAt, now);
    return `<li class="dead">${name}<span>${both("revoked", "已撤銷")} ${when}</span></li>`;
  }
  return `<li>${name}<span class="state">${both("active", "使用中")}</span>
<form method="get" action="/dashboard/revoke"><input type="hidden" name="id" value="${key.id}">
<button class="quiet danger">${both("Revoke", "撤銷")}<span class="hidden"> #${key.id}</span></button></form></li>`;
};

type ListView = {
  readonly app: string;
  readonly keys: readonly KeyInfo[];
  readonly now: number;
  readonly replaces: boolean;
  /** Id of a key that was revoked a moment ago. */
  readonly done: number | null;
};

/** The keys of the app, newest first, and the button that issues one. */
export const listPage = (view: ListView): string => {
  const done =
    view.done === null
      ? ""
      : `<p class="note" role="status">${both(`Key #${view.done} is revoked.`, `金鑰 #${view.done} 已撤銷。`)}</p>`;
  const words = view.replaces
    ? say(
        "It is shown only once. Issuing it revokes the older key at once.",
        "僅顯示一次。生成新的金鑰會立即撤銷舊的金鑰。",
      )
    : say(
        "It is shown only once. The older keys go on working until you revoke them.",
        "僅顯示一次。舊的金鑰在您撤銷之前仍然有效。",
      );
  const rows = view.keys.toReversed().map((key) => keyRow(key, view.now));
  return document(
    "API Settings",
    view.app,
    `<h1>${both("API Settings", "API 設定")} <span class="soft">${escape(view.app)}</span></h1>
${done}
<section>
<h2>${both("New API Key", "新的 API Key")}</h2>
${words}
<form class="acts" method="post" action="/dashboard/issue"><button>${both("Issue a new API Key", "生成新的 API Key")}</button></form>
</section>
<section>
<h2>${both("API Keys", "API 金鑰")}</h2>
${rows.length === 0 ? say("There is none yet.", "目前沒有金鑰。") : `<ul>${rows.join("\n")}</ul>`}
</section>`,
  );
};

/** The one page that ever shows a key. */
export const keyPage = (app: string, id: number, key: string): string =>
  document(
    "New API Key",
    app,
    `<h1>${both("New API Key", "新的 API Key")} <span class="soft">#${id}</span></h1>
<section>
${say("Copy it now. It is shown only this once; a reload does not show it again.", "請立即複製。僅顯示這一次，重新整理後不會再顯示。")}
<label for="key">API Key</label>
<textarea id="key" rows="3" readonly autofocus autocomplete="off" spellcheck="false">${escape(key)}</textarea>
<div class="acts">${back}</div>
</section>`,
  );

/** What a reload of `keyPage` gives. */
export const shownPage = (app: string): string =>
  document(
    "Shown already",
    app,
    `<h1>${both("This key was shown already", "此金鑰已顯示過")}</h1>
<section>
${say("A key is shown once and kept nowhere. If you did not copy it, revoke it and issue another one.", "金鑰僅顯示一次，不會保存。若尚未複製，請撤銷後重新生成。")}
<div class="acts">${back}</div>
</section>`,
  );

/** Asks before a key is revoked. */
export const confirmPage = (app: string, key: KeyInfo, now: number, newest: boolean): string =>
  document(
    `Revoke key #${key.id}`,
    app,
    `<h1>${both(`Revoke key #${key.id}?`, `撤銷金鑰 #${key.id}？`)}</h1>
<section>
<p>${both("issued", "建立於")} ${time(key.issuedAt, now)}, id&nbsp;#${key.id}</p>
${newest ? say("This is the <strong>newest</strong> key.", "這是<strong>最新</strong>的金鑰。") : ""}
${say("Every service that uses it stops working. This cannot be undone.", "使用此金鑰的服務將停止運作，且無法復原。")}
<form class="acts" method="post" action="/dashboard/revoke"><input type="hidden" name="id" value="${key.id}">
<button class="danger">${both("Revoke", "撤銷")} #${key.id}</button>
<a class="button quiet" href="/dashboard">${both("Cancel", "取消")}</a></form>
</section>`,
  );

/** A refusal or a wrong address, in one sentence of ours. */
export const sorryPage = (app: string, text: string): string =>
  document(
    "Not possible",
    app,
    `<h1>${both("Not possible", "無法執行")}</h1><section><p>${escape(text)}</p><div class="acts">${back}</div></section>`,
  );
