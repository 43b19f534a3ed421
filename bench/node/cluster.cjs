// The same server on Node's own cluster, which is what pm2's cluster mode is: connections go to the workers in turn.

const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let worker = 0; worker < Number(process.env.WORKERS); worker++) cluster.fork({ NODE_APP_INSTANCE: worker });
} else {
  require('./echo.cjs');
}
