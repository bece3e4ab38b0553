use std::process::{Child, Command, Stdio};

use super::{Place, cached, free_port, wait_for_port};

/// moto's S3 on a free port of the loopback, for as long as this lives.
pub struct Moto {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Moto {
    pub fn start() -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(cached("moto/bin/moto_server", "scripts/make-test-environment moto"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for_port(port, &mut process);
        Self { process, port, folder }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs a few lines of Python with `s3`, `iam` and `url` on this server, by the SDK for Python; what they print.
    pub fn python(&self, lines: &str) -> String {
        let preamble = format!(
            "import boto3, json, urllib.request\nurl = '{}'\n\
             client = lambda name: boto3.client(name, endpoint_url=url, region_name='us-east-1', aws_access_key_id='maker', aws_secret_access_key='maker')\n\
             s3, iam = client('s3'), client('iam')\n",
            self.url()
        );
        let output =
            Command::new(cached("moto/bin/python", "scripts/make-test-environment moto")).arg("-c").arg(preamble + lines).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The program, with files of `aws configure`.
    pub fn command(&self, place: &Place, credentials: &str, configuration: &str, arguments: &[&str]) -> Command {
        let (credentials_file, configuration_file) = (self.folder.path().join("credentials"), self.folder.path().join("config"));
        std::fs::write(&credentials_file, credentials).unwrap();
        std::fs::write(&configuration_file, configuration).unwrap();
        let mut command = place.command(arguments);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL"] {
            command.env_remove(name);
        }
        command.env("AWS_CONFIG_FILE", configuration_file).env("AWS_SHARED_CREDENTIALS_FILE", credentials_file);
        command
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
