// Other people's implementations on the other end of careledger.seal: reads one JSON array of jobs on stdin, writes one
// JSON array of answers. Bytes are hex. A refusal is {"refused": true}, so that the test sees it as a value.
import { createHash, argon2Sync, hkdfSync, webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { Aes256Gcm, CipherSuite, HkdfSha256 } from "@hpke/core";
import { XWing } from "@hpke/hybridkem-x-wing";
import canonicalize from "canonicalize";
import { combine, split } from "shamir-secret-sharing";

const suite = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");

// A private key is its seed: deriveKeyPair(ikm) would make another key than Python's (docs/spec/sealing.md section 3).
const privateKey = (seed) => suite.kem.importKey("raw", bytes(seed), false);

const operations = {
  combine: async ({ shares }) => hex(await combine(shares.map(bytes))),
  split: async ({ secret, n, t }) => (await split(bytes(secret), n, t)).map(hex),
  public: async ({ seed }) => {
    const pair = await suite.kem.generateKeyPairDerand(bytes(seed));
    return hex(await suite.kem.serializePublicKey(pair.publicKey));
  },
  seal: async ({ recipient, info, plaintext }) => {
    const recipientPublicKey = await suite.kem.deserializePublicKey(bytes(recipient));
    const { enc, ct } = await suite.seal({ recipientPublicKey, info: bytes(info) }, bytes(plaintext));
    return hex(enc) + hex(ct);
  },
  open: async ({ seed, info, wire }) => {
    const enc = bytes(wire.slice(0, 2240));
    const ct = bytes(wire.slice(2240));
    return hex(await suite.open({ recipientKey: await privateKey(seed), enc, info: bytes(info) }, ct));
  },
  canonicalize: async ({ text }) => hex(Buffer.from(canonicalize(JSON.parse(Buffer.from(text, "hex").toString("utf8"))))),
  verify: async ({ key, signature, message }) => {
    const imported = await webcrypto.subtle.importKey("raw", bytes(key), "Ed25519", false, ["verify"]);
    return webcrypto.subtle.verify("Ed25519", imported, bytes(signature), bytes(message));
  },
  sha256: async ({ data }) => createHash("sha256").update(bytes(data)).digest("hex"),
  hkdf: async ({ ikm, info }) => hex(hkdfSync("sha256", bytes(ikm), "", bytes(info), 32)),
  argon2id: async ({ passphrase, salt, memory_kib, iterations, lanes }) =>
    hex(
      argon2Sync("argon2id", {
        message: passphrase.normalize("NFKC"),
        nonce: bytes(salt),
        parallelism: lanes,
        tagLength: 32,
        memory: memory_kib,
        passes: iterations,
      }),
    ),
};

const jobs = JSON.parse(readFileSync(0, "utf8"));
const answers = [];
for (const { operation, ...given } of jobs) {
  try {
    answers.push({ value: await operations[operation](given) });
  } catch (error) {
    answers.push({ refused: true, why: error.name });
  }
}
process.stdout.write(JSON.stringify(answers));
