//! What HAProxy needs to be in front of an app.

use std::fmt::Write;

use super::{PATIENCE, Site};

pub(super) fn config(file: &str, sites: &[Site]) -> String {
    let idle = sites.iter().map(|site| site.idle).min().unwrap_or(60);
    let mut out = String::new();
    let _ = write!(
        out,
        r#"# HAProxy in front of the workers of {file}. Made by `sundew haproxy`: make it again when `instances` or `direct` change.
#
#     sundew haproxy {file} > haproxy.cfg
#     haproxy -c -f haproxy.cfg && haproxy -f haproxy.cfg
#
# To have it in an HAProxy that runs already: append the `frontend` and `backend` sections to /etc/haproxy/haproxy.cfg, and
# copy the timeouts that are missing in its `defaults`.

global
    # As many connections as the limit of open files allows (`ulimit -n`): a websocket takes two, to the client and to the
    # worker. Set maxconn to allow fewer.

defaults
    mode http
    # Requests of one connection may be answered by several workers, and connections to workers carry those of many clients.
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout queue 5s
    timeout http-request 10s
    timeout http-keep-alive {idle}s
    # A poll waits until there is something to say, at most for pingInterval (25 s). Longer than pingInterval + pingTimeout
    # (45 s), or HAProxy ends sessions that are well. `client` is for slow clients too.
    timeout client {PATIENCE}s
    timeout server {PATIENCE}s
    # After an upgrade to websocket: a ping comes every 25 s.
    timeout tunnel {PATIENCE}s
    # A port that refuses connections is that of a worker which was scaled away: the next one finds the session too. Only
    # connections are tried again, never a request that may have been carried out.
    retries 2
    option redispatch 1
    retry-on conn-failure
"#
    );
    for site in sites {
        site_of(&mut out, site);
    }
    out
}

fn site_of(out: &mut String, site: &Site) {
    let Site { app, name, listen, workers, .. } = site;
    let addresses = site.addresses("    ");
    let _ = write!(
        out,
        r#"
frontend {name}
    bind :{listen}
    # TLS ends here, with a certificate:
    # bind :443 ssl crt /etc/ssl/app.example.pem
    default_backend {name}_workers

# The workers of {app}, each at its own port.
backend {name}_workers
    # By the client's address; a worker more or less moves only its share. Everybody behind one NAT is at the same worker.
    balance source
    hash-type consistent
{addresses}    option forwardfor
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    # A worker that is away is no concern of HAProxy: Sundew lets another one answer at its port, and finds every session from
    # every port. So the checks ask only whether the port is there: it is not after `sundew scale` or without Sundew. A check
    # by HTTP would cost the workers requests and tell no more.
    default-server inter 2s fastinter 500ms fall 2 rise 1
"#
    );
    for (index, worker) in workers.iter().enumerate() {
        let _ = writeln!(out, "    server worker{index} {worker} check");
    }
}
