// graphile-worker, as its documentation tells to set it up for throughput.
import { makeWorkerUtils, run } from "graphile-worker";
import { Logger } from "@graphile/logger";

import { cpu, database, now, plain, report, single, url, wal } from "./measure.mjs";

const logger = new Logger(() => () => {});
const client = await database();
const utils = await makeWorkerUtils({ connectionString: url, logger });
await utils.migrate();

async function measure(name, worker) {
  const begun = new Map();
  let left = 0;
  let ended = () => {};
  const taskList = {
    nothing: (payload) => {
      begun.set(payload.number, now());
      left -= 1;
      if (left === 0) ended();
    },
  };
  const start = () =>
    run({ preset: { worker: { connectionString: url, maxPoolSize: 12, ...worker } }, taskList, logger, noHandleSignals: true });

  // Jobs on an idle worker.
  let runner = await start();
  const times = [];
  for (let number = 0; number < single; number += 1) {
    const over = new Promise((resolve) => (ended = resolve));
    left = 1;
    const added = now();
    await utils.addJob("nothing", { number: `single ${number}` });
    await over;
    times.push(begun.get(`single ${number}`) - added);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await runner.stop();

  const walBefore = await wal(client);
  const cpuBefore = cpu();
  let at = now();
  for (let from = 0; from < plain; from += 1000) {
    const jobs = Array.from({ length: Math.min(1000, plain - from) }, (_, index) => ({
      identifier: "nothing",
      payload: { number: from + index },
    }));
    await utils.addJobs(jobs);
  }
  const inserted = now() - at;
  const over = new Promise((resolve) => (ended = resolve));
  left = plain;
  at = now();
  runner = await start();
  await over;
  // Ended is what the database knows to have ended.
  for (;;) {
    const count = await client.query("SELECT count(*)::int AS count FROM graphile_worker._private_jobs");
    if (count.rows[0].count === 0) break;
  }
  const took = now() - at;
  await runner.stop();
  report(name, { inserted, took, times, walBytes: (await wal(client)) - walBefore, cpu: cpu() - cpuBefore });
}

await measure("graphile-worker", { concurrentJobs: 24 });
await measure("graphile-worker, local", {
  concurrentJobs: 24,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
});
await utils.release();
await client.end();
process.exit(0);
