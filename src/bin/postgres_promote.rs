//! The Ansible module `postgres_promote`. See `library/postgres_promote.yml`.

use std::process::ExitCode;

use understudy::ansible_module::serve;
use understudy::modules::postgres_promote::PostgresPromote;

fn main() -> ExitCode {
    serve::<PostgresPromote>(std::env::args_os().skip(1))
}
