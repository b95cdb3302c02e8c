// What the peers' benches have in common: the database's work, the rate, the times from adding to beginning.
import pg from "pg";

export const url = process.env.BENCH_POSTGRES;
export const plain = Number(process.env.BENCH_PLAIN ?? 10_000);
export const single = Number(process.env.BENCH_SINGLE ?? 300);

export async function database() {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}

/** The position in the database's write-ahead log. */
export async function wal(client) {
  return Number((await client.query("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS at")).rows[0].at);
}

export const now = () => Number(process.hrtime.bigint()) / 1e6;

export function report(name, { inserted, took, times, walBytes, cpu }) {
  times.sort((one, other) => one - other);
  const at = (share) => (times.length ? times[Math.floor((times.length - 1) * share)].toFixed(1) : "-");
  const cells = [
    (plain / (inserted / 1000)).toFixed(0),
    (plain / (took / 1000)).toFixed(0),
    at(0.5),
    at(0.99),
    (walBytes / plain).toFixed(0),
    ((cpu * 1000) / plain).toFixed(0),
  ];
  console.log([name.padEnd(24), ...cells.map((cell) => cell.padStart(10))].join(" "));
}

/** Milliseconds of processor that this process has used. */
export function cpu() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
