//! The settings of an installation that changes no threshold, as `failover-check` itself reads them: so that no test spells a default out again.

use std::fs;
use std::sync::LazyLock;

use understudy::failover::settings::Settings;

/// What the least settings file leads to. Nothing exists at the places that it names.
pub fn default_settings() -> &'static Settings {
    static READ: LazyLock<Settings> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let (file, password) = (folder.path().join("settings.toml"), folder.path().join("password"));
        let text = format!(
            "state_directory = \"/nowhere\"\ndocker_socket = \"/nowhere/docker.sock\"\napp_container = \"app\"\napp_url = \"http://127.0.0.1:1\"\n\
             database = \"d\"\nfailover_user = \"u\"\nfailover_password_file = \"{}\"\n[nodes]\npg-a = \"understudy-pg-a\"\npg-b = \"understudy-pg-b\"\n",
            password.display()
        );
        fs::write(&password, "p").unwrap();
        fs::write(&file, text).unwrap();
        Settings::load(&file).unwrap()
    });
    &READ
}
