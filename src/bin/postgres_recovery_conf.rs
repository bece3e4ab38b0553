//! The Ansible module `postgres_recovery_conf`. See `library/postgres_recovery_conf.yml`.

use std::process::ExitCode;

use understudy::ansible_module::serve;
use understudy::modules::postgres_recovery_conf::PostgresRecoveryConf;

fn main() -> ExitCode {
    serve::<PostgresRecoveryConf>(std::env::args_os().skip(1))
}
