// pg-boss, one job and a hundred at a time.
import PgBoss from "pg-boss";

import { cpu, database, now, plain, report, url, wal } from "./measure.mjs";

const client = await database();
const boss = new PgBoss({ connectionString: url, max: 12 });
boss.on("error", (error) => console.error(error));
await boss.start();

async function measure(name, batchSize, loops) {
  const queue = `bench-${batchSize}`;
  await boss.createQueue(queue);
  const walBefore = await wal(client);
  const cpuBefore = cpu();
  let at = now();
  for (let from = 0; from < plain; from += 1000) {
    await boss.insert(Array.from({ length: Math.min(1000, plain - from) }, () => ({ name: queue, data: {} })));
  }
  const inserted = now() - at;
  at = now();
  let done = 0;
  const loop = async () => {
    while (done < plain) {
      const jobs = await boss.fetch(queue, { batchSize });
      if (jobs.length === 0) break;
      await boss.complete(queue, jobs.map((job) => job.id));
      done += jobs.length;
    }
  };
  await Promise.all(Array.from({ length: loops }, loop));
  report(name, { inserted, took: now() - at, times: [], walBytes: (await wal(client)) - walBefore, cpu: cpu() - cpuBefore });
}

await measure("pg-boss, one", 1, 24);
await measure("pg-boss, a hundred", 100, 4);
await boss.stop({ graceful: false });
await client.end();
process.exit(0);
