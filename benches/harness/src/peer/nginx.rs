//! A pair of nginx as reverse proxies: the near one takes plain HTTP and asks the far one with mutual TLS 1.3 over connections that
//! it keeps, and the far one the origin. A worker for each core, and access logs as by default. Refuses to know what is measured.

use std::path::Path;

use anyhow::Result;

use super::{Site, Tunnel, write_private};
use crate::pki::Pki;
use crate::place::{Place, free_port};
use crate::process::Process;
use crate::service::Service;

/// Connections that a worker keeps to the next hop: as many as any case has clients.
const KEPT: usize = 64;

pub(super) fn start(site: &Site, scratch: &Path) -> Result<Tunnel> {
    let pki = Pki::make(scratch, &["near.test", "far.test"])?;
    let (entry, middle) = (Place::inside(free_port()), site.far.outside(free_port()));
    let (root, near_pem, far_pem) = (pki.root(), pki.both("near.test"), pki.both("far.test"));
    let tls = format!(
        "ssl_certificate {far_pem};
    ssl_certificate_key {far_pem};
    ssl_client_certificate {root};
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    );
    let far =
        Hop { listen: format!("{middle} ssl"), tls, to: format!("server {}", site.local_target()), towards: String::new() };
    let far = far.start(&site.far, &scratch.join("far"), site.service, middle.port())?;
    let pass = prefix_of_directives(site.service);
    let towards = format!(
        "{pass}_ssl_certificate {near_pem};
      {pass}_ssl_certificate_key {near_pem};
      {pass}_ssl_trusted_certificate {root};
      {pass}_ssl_verify on;
      {pass}_ssl_name far.test;
      {pass}_ssl_protocols TLSv1.3;
      {pass}_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    );
    let near = Hop { listen: entry.to_string(), tls: String::new(), to: format!("server {middle}"), towards };
    let near = near.start(&site.near, &scratch.join("near"), site.service, entry.port())?;
    Ok(Tunnel::plain(entry, vec![near], vec![far]))
}

/// One of the two.
struct Hop {
    listen: String,
    /// Directives of the server that listens.
    tls: String,
    to: String,
    /// Directives of the TLS towards the next hop; empty without TLS.
    towards: String,
}

impl Hop {
    fn start(&self, place: &Place, dir: &Path, service: Service, port: u16) -> Result<Process> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join("nginx.conf");
        write_private(&file, &self.config(dir, service))?;
        let mut command = place.program("nginx");
        command.arg("-p").arg(dir).arg("-c").arg(&file).arg("-e").arg("stderr");
        let mut process = Process::start_quiet("nginx", command)?;
        process.listens(port)?;
        Ok(process)
    }

    fn config(&self, dir: &Path, service: Service) -> String {
        let Self { listen, tls, to, towards } = self;
        let (dir, pass) = (dir.display(), prefix_of_directives(service));
        let http2 = if service == Service::Stream { " http2" } else { "" };
        let scheme = match (service, towards.is_empty()) {
            (Service::Stream, true) => "grpc",
            (Service::Stream, false) => "grpcs",
            (_, true) => "http",
            (_, false) => "https",
        };
        let (buffers, bodies) = match service {
            // A stream of messages may be idle.
            Service::Stream => ("", "grpc_read_timeout 1h;"),
            // Connections are kept, and a body is passed on as it comes instead of being written to a file first.
            _ => (
                "proxy_http_version 1.1;
      proxy_set_header Connection \"\";",
                "proxy_request_buffering off;
      proxy_max_temp_file_size 0;",
            ),
        };
        format!(
            "daemon off;
user root;
worker_processes auto;
pid {dir}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log {dir}/access.log;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  client_max_body_size 0;
  keepalive_requests 1000000000;
  upstream next {{
    {to};
    keepalive {KEPT};
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen}{http2};
    {tls}
    location / {{
      {pass}_pass {scheme}://next;
      {buffers}
      {bodies}
      {towards}
    }}
  }}
}}
"
        )
    }
}

/// What directives about the next hop begin with.
fn prefix_of_directives(service: Service) -> &'static str {
    if service == Service::Stream { "grpc" } else { "proxy" }
}
