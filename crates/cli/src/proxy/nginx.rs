//! What nginx needs to be in front of an app.

use std::fmt::Write;

use super::{PATIENCE, Site};
use crate::args::Hash;

pub(super) fn config(file: &str, sites: &[Site], hash: Hash) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        r#"# nginx in front of the workers of {file}. Made by `sundew nginx`: make it again when `instances` or `direct` change.
#
#     sundew nginx {file} > nginx.conf
#     nginx -t -c "$PWD/nginx.conf" && nginx -c "$PWD/nginx.conf"
#
# To have it in an nginx that runs already: put what is between the two lines of dashes, without the `access_log` line,
# into a file of its own in /etc/nginx/conf.d (it is included inside of `http {{}}` there), then `nginx -s reload`.

worker_processes auto;
# A websocket takes two descriptors, to the client and to the worker, for as long as it lives. As root, allow enough:
# worker_rlimit_nofile 65536;
error_log stderr warn;
# As another user than root, start it with `nginx -p "$PWD" -c nginx.conf`, and without the # in front of these lines:
# pid nginx.pid;

events {{
    worker_connections 16384;
}}

http {{
    # client_body_temp_path nginx-temp;
    # proxy_temp_path nginx-temp;
    # fastcgi_temp_path nginx-temp;
    # uwsgi_temp_path nginx-temp;
    # scgi_temp_path nginx-temp;

    # ---------------------------------------------------------------------------------------------------------------------
    access_log off;

    # An upgrade is passed on as one. Everything else goes over connections that are kept (an empty Connection header), so
    # that a poll costs no new one.
    map $http_upgrade $sundew_connection {{
        default upgrade;
        ""      "";
    }}
"#
    );
    for site in sites {
        upstream(&mut out, site, hash);
        server(&mut out, site);
    }
    out.push_str("    # ---------------------------------------------------------------------------------------------------------------------\n}\n");
    out
}

fn upstream(out: &mut String, site: &Site, hash: Hash) {
    let method = match hash {
        Hash::Ip => {
            "        # By the client's address: of IPv4 the first three numbers, so that everybody in such a network, and everybody\n\
             \x20       # behind one NAT, is at the same worker. `--hash consistent` takes the whole address.\n\
             \x20       # Behind another proxy all clients have its address: see set_real_ip_from and real_ip_header.\n\
             \x20       ip_hash;\n"
        }
        Hash::Consistent => {
            "        # By the client's whole address; a worker more or less moves only its share. Everybody behind one NAT is at the\n\
             \x20       # same worker. Behind another proxy all clients have its address: see set_real_ip_from and real_ip_header.\n\
             \x20       hash $remote_addr consistent;\n"
        }
    };
    let _ = write!(
        out,
        "\n    # The workers of {}, each at its own port. A worker that is away is no concern of nginx: Sundew lets another one\n    \
         # answer at its port, and finds every session from every port.\n    upstream {} {{\n{method}",
        site.app, site.name
    );
    for worker in &site.workers {
        let _ = writeln!(out, "        server {worker};");
    }
    let _ = write!(
        out,
        "        # Idle connections that are kept, per nginx process; closed by nginx before Sundew closes them (limits.idleTimeout).\n        \
         keepalive 256;\n        keepalive_timeout {}s;\n    }}\n",
        site.idle
    );
}

fn server(out: &mut String, site: &Site) {
    let Site { name, listen, .. } = site;
    let addresses = site.addresses("            ");
    let _ = write!(
        out,
        r#"
    server {{
        listen {listen};
        # server_name app.example;
        # TLS ends here, with a certificate:
        # listen 443 ssl;
        # ssl_certificate     /etc/ssl/app.example.pem;
        # ssl_certificate_key /etc/ssl/app.example.key;

        # Socket.IO takes 1 MB (maxHttpBufferSize); for larger uploads raise both.
        client_max_body_size 2m;

        location / {{
            proxy_pass http://{name};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $sundew_connection;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
{addresses}            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;

            # What a worker sends goes out at once: a poll's answer is not collected first.
            proxy_buffering off;

            # A poll waits until there is something to say, at most for pingInterval (25 s); a websocket is silent for as
            # long. Longer than pingInterval + pingTimeout (45 s), or nginx ends sessions that are well.
            proxy_read_timeout {PATIENCE}s;
            proxy_send_timeout {PATIENCE}s;
            proxy_connect_timeout 5s;

            # A port that refuses connections is that of a worker which was scaled away: the next one finds the session too.
            # Not on a timeout: it would ask a second worker to poll the same session.
            proxy_next_upstream error;
            proxy_next_upstream_tries 3;
        }}
    }}
"#
    );
}
