/** What `init` has found out or been told. */
export type Answers = {
  readonly app: string;
  readonly baseUrl: string;
  /** Path of the env file, relative to the config where it lies below it. */
  readonly dotenv: string;
  readonly keyName: string;
  readonly timezone: string;
};

const scalar = (text: string): string =>
  /^[A-Za-z0-9./][\w./:-]*$/.test(text) && !text.endsWith(":") ? text : JSON.stringify(text);
const isAwkward = (text: string): boolean => /^(?:\d.*|null|true|false|yes|no|on|off|y|n)$/i.test(text);
const word = (text: string): string => (isAwkward(text) ? JSON.stringify(text) : scalar(text));

/** A commented config. It can be used as it stands; what is commented out is there to be taken in. */
export const configText = ({ app, baseUrl, dotenv, keyName, timezone }: Answers): string => `\
# Config of imkit-rotator. It holds no secret and may be committed.
# Every key of this file, for an editor:  imkit-rotator schema > imkit-rotator.schema.json
schemaVersion: 1

# Ledger and escrow lie in ~/.local/state/imkit-rotator (XDG). On a server, name a local folder that only the rotator's user may enter:
# state: { dir: /var/lib/imkit-rotator }

defaults:
  timezone: ${word(timezone)}
  rotateEvery: 90d            # a key that is older is due

apps:
  ${word(app)}:
    baseUrl: ${word(baseUrl)}

    # Every place that holds the key. A store that is not named here keeps the old key, and what reads it fails when that is revoked.
    stores:
      - { name: env, type: dotenv, path: ${word(dotenv)}, key: ${keyName} }
      # - { name: vault, type: exec, read: [./vault-get.sh], write: [./vault-put.sh] }    # the key comes on standard input

    # What makes services take the new key up. Without rollouts the rotation waits until a person has restarted
    # them and says so:  imkit-rotator rotate ${app} --restarted
    # rollouts:
    #   - { name: api, type: exec, command: [systemctl, restart, chat-api.service] }
    #   - { name: none, type: none, reason: "reads the file on each call" }

    # An old key counts as dead after this many rejections in a row, each beside a made-up key that is rejected too.
    revoke: { probes: 3, every: 5s }
`;
