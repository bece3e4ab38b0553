use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{cached, free_port, wait_for_port};

/// A real nginx on two free ports of the loopback, http and https, for as long as this lives.
pub struct Nginx {
    folder: tempfile::TempDir,
    process: Option<Child>,
    http: u16,
    https: u16,
}

/// One request, as nginx saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub path: String,
    pub range: String,
    pub status: u16,
    pub connection: u64,
    pub referer: String,
}

impl Nginx {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (http, https) = (free_port(), free_port());
        let base = folder.path().display().to_string();
        std::fs::create_dir(folder.path().join("files")).unwrap();
        std::fs::write(folder.path().join("passwords"), "user:{PLAIN}hush\n").unwrap();
        make_certificates(&folder);
        let user = if nix::unistd::geteuid().is_root() { "user root root;" } else { "" };
        let locations = format!(
            "location / {{ }}
             location /noranges/ {{ alias {base}/files/; max_ranges 0; }}
             location /gzip/ {{ alias {base}/files/; gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; gzip_http_version 1.0; }}
             location /encoded/ {{ alias {base}/files/; gzip_static always; }}
             location /chunked/ {{ alias {base}/files/; ssi on; ssi_types *; }}
             location /slow/ {{ alias {base}/files/; limit_rate 1m; }}
             location /steady/ {{ alias {base}/files/; limit_rate 4m; }}
             location /secret/ {{ alias {base}/files/; auth_basic secret; auth_basic_user_file {base}/passwords; }}
             location /denied {{ return 403; }}
             location /busy {{ add_header Retry-After 1 always; return 503; }}
             location /forever {{ add_header Retry-After 9999 always; return 429; }}
             location /loop {{ return 302 /loop; }}
             location /out {{ return 302 ftp://127.0.0.1/out?hush; }}
             location ~ ^/moved/(.*) {{ return 302 /$1?signature=hush; }}
             location ~ ^/down/(.*) {{ return 302 http://127.0.0.1:{http}/$1; }}
             location ~ ^/up/(.*) {{ return 302 https://127.0.0.1:{https}/$1; }}"
        );
        let configuration = format!(
            "daemon off; master_process off; pid {base}/pid; error_log {base}/error.log; {user}
             events {{ worker_connections 512; }}
             http {{
               log_format lines '$uri\t$http_range\t$status\t$connection\t$http_referer';
               access_log {base}/access.log lines; sendfile on; tcp_nodelay on; root {base}/files;
               client_body_temp_path {base}/a; proxy_temp_path {base}/b; fastcgi_temp_path {base}/c; uwsgi_temp_path {base}/d; scgi_temp_path {base}/e;
               server {{ listen 127.0.0.1:{http}; {locations} }}
               server {{ listen 127.0.0.1:{https} ssl; ssl_certificate {base}/server.pem; ssl_certificate_key {base}/server.key; {locations} }}
             }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        let mut nginx = Self { folder, process: None, http, https };
        nginx.start_again();
        nginx
    }

    /// After [`Self::kill`], with the same files on the same ports.
    pub fn start_again(&mut self) {
        let base = self.folder.path().display().to_string();
        let program = cached("tools/nginx", "scripts/fetch-test-nginx");
        let mut process = Command::new(program)
            .args(["-p", &base, "-c", &format!("{base}/nginx.conf"), "-e", &format!("{base}/error.log")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        wait_for_port(self.http, &mut process);
        self.process = Some(process);
    }

    /// Its connections break off, in the middle of whatever they bring.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn file(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Where a file is that it serves.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    pub fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http)
    }

    pub fn https(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.https)
    }

    /// The certificate of the authority that signed the server's.
    pub fn authority(&self) -> String {
        self.folder.path().join("authority.pem").display().to_string()
    }

    /// What was asked of it, in order.
    pub fn asked(&self) -> Vec<Asked> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        log.lines()
            .filter_map(|line| {
                let [path, range, status, connection, referer] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
                Some(Asked {
                    path: path.to_owned(),
                    range: range.to_owned(),
                    status: status.parse().ok()?,
                    connection: connection.parse().ok()?,
                    referer: referer.to_owned(),
                })
            })
            .collect()
    }
}

/// An authority, and a certificate of it for the loopback.
fn make_certificates(folder: &tempfile::TempDir) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout authority.key -out authority.pem -days 2 -subj /CN=authority"));
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    std::fs::write(folder.path().join("extensions"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n").unwrap();
    openssl("x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out server.pem");
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}
