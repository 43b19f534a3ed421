//! nginx before the workers, as one finds it and as one would wish it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::ensure;

use super::{Server, folder, ports};

/// How nginx is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nginx {
    /// With everything that helps: connections to the workers are kept and used again, `Connection: upgrade` is sent
    /// with websockets only, each worker process has its own listening socket.
    Tuned,
    /// As the documentation of Socket.IO has it. `Connection: upgrade` goes with every request, so none is kept.
    Docs,
    /// As `Docs`, and `/place` leads by `ip_hash` to one of so many servers, which say their number.
    IpHash(u16),
}

impl Nginx {
    /// Whether it can be measured here.
    pub(crate) fn is_installed() -> bool {
        let mut version = Command::new("nginx");
        version.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    }

    pub(crate) async fn start(self, workers: &[SocketAddr]) -> anyhow::Result<Server> {
        ensure!(!workers.is_empty(), "nginx needs workers");
        let port = ports(1)?;
        let folder = folder()?;
        let file = folder.join("nginx.conf");
        let places = match self {
            Nginx::IpHash(count) => places(ports(count)?, count),
            _ => (String::new(), ""),
        };
        std::fs::write(&file, self.config(&folder.display().to_string(), port, workers, &places))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(&file);
        Server::start(command, folder, port).await
    }

    fn config(
        self,
        folder: &str,
        port: u16,
        workers: &[SocketAddr],
        (servers_of_places, location): &(String, &str),
    ) -> String {
        let mut servers = String::new();
        for worker in workers {
            let _ = writeln!(servers, "    server {worker};");
        }
        // nginx's workers give up root, and then may not write into a folder of root's.
        let user = if std::fs::metadata("/proc/self").is_ok_and(|owner| is_root(&owner)) {
            "user root;"
        } else {
            ""
        };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
            .collect();
        let (tuning, upstream, listen, connection) = match self {
            Nginx::Tuned => (
                "  sendfile on;\n  tcp_nopush on;\n  tcp_nodelay on;\n  keepalive_requests 1000000;\n  \
                 map $http_upgrade $upgrading { default upgrade; '' ''; }\n",
                // Node closes what is idle for 5 s; nginx must do it first, or it sends into a closing connection.
                "    keepalive 256;\n    keepalive_requests 1000000;\n    keepalive_timeout 4s;\n",
                "reuseport backlog=4096",
                "$upgrading",
            ),
            Nginx::Docs | Nginx::IpHash(_) => ("", "", "", "\"upgrade\""),
        };
        format!(
            "daemon off;\nworker_processes 2;\npid {folder}/pid;\nerror_log {folder}/log warn;\n{user}\n\
             events {{ worker_connections 16384; }}\n\
             http {{\n  access_log off;\n{temporary}{tuning}  \
             upstream nodes {{\n    hash $remote_addr consistent;\n{servers}{upstream}  }}\n  \
             {servers_of_places}  server {{\n    listen 127.0.0.1:{port} {listen};\n{location}    location / {{\n      \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      \
             proxy_set_header Host $host;\n      proxy_pass http://nodes;\n      \
             proxy_http_version 1.1;\n      proxy_set_header Upgrade $http_upgrade;\n      \
             proxy_set_header Connection {connection};\n    }}\n  }}\n}}\n"
        )
    }
}

/// Servers that say their number, and the location that leads to them.
fn places(first: u16, count: u16) -> (String, &'static str) {
    let (mut list, mut servers) = (String::new(), String::new());
    for number in 0..count {
        let port = first + number;
        let _ = writeln!(list, "    server 127.0.0.1:{port};");
        let _ = writeln!(servers, "  server {{ listen 127.0.0.1:{port}; return 200 {number}; }}");
    }
    let location = "    location /place { proxy_pass http://places; }\n";
    (format!("upstream places {{\n    ip_hash;\n{list}  }}\n{servers}"), location)
}

fn is_root(owner: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    owner.uid() == 0
}
