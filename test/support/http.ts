/** What /stats answers. */
export interface Stats {
  local_connections: number;
  rooms: number;
  instance: string;
  uptime_s: number;
  cluster: { connections: number; users: number; rooms: number; instances: number } | null;
}

export async function stats(url: string, headers: Record<string, string> = {}): Promise<Stats> {
  const response = await fetch(`${url}/stats`, { headers });
  if (response.status !== 200) throw new Error(`/stats answered ${response.status}`);
  return (await response.json()) as Stats;
}

/** The status of a GET; the body is read so that no connection lingers. */
export async function status(url: string, headers: Record<string, string> = {}): Promise<number> {
  const response = await fetch(url, { headers });
  await response.arrayBuffer();
  return response.status;
}

/** The sum over a metric's series whose labels contain all of `labels`; 0 where there is none. */
export function metric(exposition: string, name: string, labels: Record<string, string> = {}): number {
  let sum = 0;
  for (const line of exposition.split('\n')) {
    const series = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (series === null || series[1] !== name) continue;
    const given = series[2] ?? '';
    if (Object.entries(labels).every(([label, value]) => given.includes(`${label}="${value}"`))) {
      sum += Number(series[3]);
    }
  }
  return sum;
}
