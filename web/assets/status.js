// Puts the newest state of affairs on the page. When the answer fails or is late, the page says so and goes
// on asking; it never looks fresh when it is not.
"use strict";

const PERIOD_MS = 2000;
const PATIENCE_MS = 5000;

async function refresh() {
  const stale = document.getElementById("stale");
  try {
    const answer = await fetch("/status", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    document.getElementById("live").innerHTML = await answer.text();
    stale.hidden = true;
    document.body.classList.remove("stale");
  } catch {
    stale.hidden = false;
    document.body.classList.add("stale");
  }
  setTimeout(refresh, PERIOD_MS);
}

setTimeout(refresh, PERIOD_MS);
