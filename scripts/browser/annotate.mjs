// Two annotators and an admin in a real browser, with the keyboard alone: invite, guidelines, 20
// answers each, a reload, an undo, disagreements, a decision, the export; in live mode.
//   node annotate.mjs BINARY OUT_DIR      (scripts/check-annotate installs what it needs)
// OUT_DIR gets preferences.jsonl and screenshots.
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";
import { PHONE, accessible, begin, follow, invite, lines, press, serve, signIn, start, tabTo, type } from "./common.mjs";

const [binary, out] = process.argv.slice(2);
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });

const QUESTIONS = [
  "How do I kill a Python process that hangs?",
  "Why is the sky blue, and why is it red in the evening?",
  "Write a function that adds up the even numbers of a list.",
  "My knife is blunt. How do I sharpen it safely?",
];
const GOOD = [
  "Find its number with `ps aux | grep python`, then run `kill PID`. Only if it does not react: `kill -9 PID`.\n\n- `kill` asks the process to end, so it can clean up\n- `kill -9` ends it at once",
  "Air scatters **short waves** more than long ones, so blue light reaches you from everywhere.\n\nIn the evening the light crosses more air: most of the blue is gone, and red is left.",
  "```python\ndef sum_even(numbers):\n    return sum(n for n in numbers if n % 2 == 0)\n```\n\nIt works for empty lists too.",
  "1. Put a damp cloth under the stone.\n2. Hold the blade at about **20°**.\n3. Draw it over the stone, away from your fingers.\n4. Turn it over and repeat.",
];
const POOR = [
  "I'm sorry, but I cannot help with killing anything.",
  "The sky reflects the sea, which is blue. <script>document.title = 'owned'</script>",
  "Here is a function:\n\n```python\ndef f(l): return l\n```",
  "Knives are dangerous. Please ask a professional, and never handle sharp objects yourself under any circumstances.",
];
const rows = Array.from({ length: 20 }, (_, i) => ({
  schema: 1, id: `q${i}/0-1`, prompt_id: `q${i}`,
  prompt: i % 3 ? `${QUESTIONS[i % 4]} (${i + 1})`
    : [{ role: "system", content: "Be brief." }, { role: "user", content: `${QUESTIONS[i % 4]} (${i + 1})` }],
  first: { index: 0, text: GOOD[i % 4] }, second: { index: 1, text: POOR[i % 4] },
  strategy: "shf-cas", rank: i, why: { k: 1, pacs_first: -1.5, pacs_second: 1.5 }, flags: [],
}));
// The policy finds the poor answers likely, so each pair is a conflict.
const pool = rows.map((r, i) => ({ schema: 1, id: r.prompt_id, prompt: r.prompt,
  completions: [{ text: r.first.text, logp: -60 - i, n_tokens: 30 }, { text: r.second.text, logp: -20, n_tokens: 10 }] }));

const { base, stop } = await serve(binary, ["--in", lines(out, "selection.jsonl", rows), "--db", join(out, "app.db"),
  "--overlap", "2", "--title", "Helpful and safe", "--cost-per-hour", "20",
  "--live", "tiny-random", "--live-pool", lines(out, "pool.jsonl", pool), "--live-every", "10"]);
const { browser, problems, open } = await start();
const mine = async (page) => Number(/you: (\d+)/.exec(await page.textContent(".pace"))[1]);
const shot = (page, name) => page.screenshot({ path: join(out, `${name}.png`), fullPage: true });

/** Answers the question on the page: what somebody who reads both would say. */
const answer = async (name, page, i) => {
  const left = await page.textContent(".pair .completion:first-child .text");
  const good = /aux \| grep|Air scatters|sum_even|damp cloth/.test(left);
  if (i === 5) {
    await page.keyboard.press("c");
    await page.keyboard.type("half a thought");
    await page.waitForTimeout(700);
    await page.reload();
    assert.equal((await page.inputValue("#comment")).trim(), "half a thought", "the draft survived the reload");
    await page.keyboard.press("q");
    for (let n = 0; n < 4; n++) await page.keyboard.press("a");
    assert.ok(await page.isChecked("[name=rating_left][value='4']"), "four presses are four points");
  }
  if (i === 2) await shot(page, name === "Ann" ? "compare-light" : "compare-dark");
  if (i === 9) {
    const before = await mine(page);
    await press(page, "u");
    assert.equal(await mine(page), before - 1, "undo took one back");
    assert.match(await page.textContent("[role=status]"), /Your last answer is open again/);
    assert.ok(await page.$(".choices .before"), "the answer before is marked");
    if (name === "Ann") await shot(page, "compare-undone");
    await press(page, "3");
    assert.equal(await mine(page), before);
  }
  // Bo disagrees on every fifth.
  await press(page, name === "Bo" && i % 5 === 4 ? "0" : good ? "1" : "5");
};

try {
  const admin = await open(base);
  await signIn(admin, base);
  const people = { Ann: await open(base), Bo: await open(base, { colorScheme: "dark" }) };
  for (const [name, page] of Object.entries(people)) await begin(page, base + await invite(admin, name));
  for (let i = 0; i < 20; i++) {
    for (const [name, page] of Object.entries(people)) await answer(name, page, i);
  }
  for (const page of Object.values(people)) {
    assert.match(await page.textContent("main"), /Nothing left/);
    assert.notEqual(await page.title(), "owned");
  }

  await follow(admin, "/admin/settings");
  await type(admin, "#overlap", "3");
  await press(admin, "Enter");
  for (const scheme of ["light", "dark"]) {
    const page = await open(base, { ...PHONE, colorScheme: scheme });
    await begin(page, base + await invite(admin, `Phone ${scheme}`));
    await accessible(page, `a comparison on a phone, ${scheme}`);
    await shot(page, `phone-${scheme}`);
  }

  await follow(admin, "/admin/disagreements");
  const open0 = Number(/(\d+) open/.exec(await admin.textContent("main"))[1]);
  assert.ok(open0 >= 4, `${open0} disagreements`);
  await shot(admin, "disagreement");
  await admin.keyboard.press("c");
  await admin.keyboard.type("the first answers the question");
  await admin.keyboard.press("Escape");
  await press(admin, "1");
  assert.match(await admin.textContent("main"), new RegExp(`${open0 - 1} open, 1 decided`));

  await follow(admin, "/admin");
  for (let i = 0; !/ranked anew in/.test(await admin.textContent("main")); i++) {
    assert.ok(i < 50, "live mode fitted nothing");
    await admin.waitForTimeout(200);
    await admin.reload();
  }
  await shot(admin, "dashboard");
  await tabTo(admin, 'a[href$="/preferences.jsonl"]');
  const [download] = await Promise.all([admin.waitForEvent("download"), admin.keyboard.press("Enter")]);
  await download.saveAs(join(out, "preferences.jsonl"));
  const records = readFileSync(join(out, "preferences.jsonl"), "utf8").trim().split("\n").map((l) => JSON.parse(l));
  assert.equal(records.length, 20);
  assert.ok(records.every((r) => r.votes.length === 2));
  assert.equal(records.filter((r) => r.adjudicated).length, 1);
  assert.ok(records.filter((r) => r.p_first > 0.5).length >= 15, "people preferred the good answers");
  assert.deepEqual(problems, []);
  console.log(`browser: 40 answers, ${open0} disagreements, export with ${records.length} records`);
} finally {
  await browser.close();
  stop();
}
