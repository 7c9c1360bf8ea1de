import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tracked } from '../test/support/child.js';
import { eventually, within } from '../test/support/eventually.js';
import { freePort } from '../test/support/redis-server.js';

const MAX_CONNECTIONS = 8_192;

export type BalancerKind = 'nginx' | 'haproxy';

/** A real reverse proxy in front of the instances, on loopback, with all of its files in a folder of its own. */
export class Balancer {
  private constructor(
    readonly port: number,
    private readonly directory: string,
    private readonly child: ChildProcess,
    private readonly ended: Promise<unknown>,
  ) {}

  /** `ports` are those of all instances that will ever run: some of them may not yet, or no longer. */
  static async start(kind: BalancerKind, ports: readonly number[]): Promise<Balancer> {
    const directory = await mkdtemp(join(tmpdir(), `fanfare-${kind}-`));
    const port = await freePort();
    const file = join(directory, `${kind}.conf`);
    await writeFile(file, kind === 'nginx' ? nginxSettings(port, ports) : haproxySettings(port, ports));
    // Both as one process that stays in the foreground: ended with it, whatever happens.
    const args = kind === 'nginx' ? ['-p', directory, '-c', file, '-e', 'stderr'] : ['-db', '-f', file];
    const child = spawn(kind, args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
    let output = '';
    child.stderr.on('data', (chunk: Buffer) => (output = `${output}${chunk.toString()}`.slice(-2_000)));
    const balancer = new Balancer(port, directory, child, tracked(child));
    const failed = new Promise<never>((_resolve, reject) => {
      child.once('error', (error) => reject(new Error(`${kind} can't be run: ${error.message}`)));
      child.once('exit', (code) => reject(new Error(`${kind} ended with ${code}: ${output}`)));
    });
    try {
      await within(Promise.race([balancer.#accepts(), failed]), 10_000, () => `${kind}: ${output}`);
    } catch (error) {
      await balancer.dispose();
      throw error;
    }
    return balancer;
  }

  get address(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  async dispose(): Promise<void> {
    this.child.kill('SIGKILL');
    if (this.child.pid !== undefined) await this.ended;
    await rm(this.directory, { recursive: true, force: true });
  }

  #accepts(): Promise<void> {
    return eventually(
      () =>
        new Promise<void>((resolve, reject) => {
          const socket = connect(this.port, '127.0.0.1', () => {
            socket.destroy();
            resolve();
          }).once('error', reject);
        }),
      { timeoutMs: 9_000, everyMs: 50 },
    );
  }
}

/**
 * What refuses, or answers 503 because it drains, is passed over, connection by connection. `max_fails` is 0 because
 * nginx forgets a failure only at the end of a later request: with connections that last, an instance that was away
 * once would get one connection in `fail_timeout` for hours, and with all of them so nginx answers 502.
 */
function nginxSettings(port: number, ports: readonly number[]): string {
  return `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
worker_rlimit_nofile ${2 * MAX_CONNECTIONS};
events { worker_connections ${MAX_CONNECTIONS}; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  upstream instances {
    least_conn;
${ports.map((instance) => `    server 127.0.0.1:${instance} max_fails=0;`).join('\n')}
  }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://instances;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
      proxy_connect_timeout 1s;
      proxy_read_timeout 75s;
      proxy_next_upstream error timeout http_503;
    }
  }
}
`;
}

function haproxySettings(port: number, ports: readonly number[]): string {
  return `
global
  maxconn ${MAX_CONNECTIONS}
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 75s
  timeout server 75s
  timeout tunnel 75s
  option redispatch 1
  retries 5
  retry-on conn-failure empty-response 503
frontend clients
  bind 127.0.0.1:${port} backlog 4096
  default_backend instances
backend instances
  balance leastconn
  option httpchk GET /health/ready
  http-check expect status 200
  default-server check inter 500ms fall 1 rise 1
${ports.map((instance, index) => `  server instance${index} 127.0.0.1:${instance}`).join('\n')}
`;
}
