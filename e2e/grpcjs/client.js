// A gRPC client that calls the health service of the target in its first argument in a
// loop. For each line on its standard input it writes a line with its statistics. It exits
// at the end of its input.
'use strict';

const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
const xds = require('@grpc/grpc-js-xds');

const CALL_TIMEOUT_MS = 10_000;
const PAUSE_MS = 2;

xds.register();
const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
const stats = { calls: 0, failed: 0, first_error: '', by_peer: {} };

function check() {
  // An empty HealthCheckRequest checks the whole server.
  const call = client.makeUnaryRequest(
    '/grpc.health.v1.Health/Check',
    (request) => request,
    (response) => response,
    Buffer.alloc(0),
    new grpc.Metadata(),
    { deadline: Date.now() + CALL_TIMEOUT_MS },
    (err, response) => {
      stats.calls++;
      // HealthCheckResponse{status: SERVING}
      if (err || !response.equals(Buffer.from([0x08, 0x01]))) {
        stats.failed++;
        stats.first_error ||= err ? err.message : `answered ${response.toString('hex')}`;
      } else {
        const peer = call.getPeer();
        stats.by_peer[peer] = (stats.by_peer[peer] ?? 0) + 1;
      }
      setTimeout(check, PAUSE_MS);
    },
  );
}

check();
readline
  .createInterface({ input: process.stdin })
  .on('line', () => process.stdout.write(JSON.stringify(stats) + '\n'))
  .on('close', () => process.exit(0));
