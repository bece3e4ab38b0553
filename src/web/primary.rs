//! Which node the app asks, and over which pool.
//!
//! The record is read when its folder says that it was replaced, and every [`LOOK_EVERY`] all the same, since a watch can be lost. It is a few hundred
//! bytes, so its content is compared, not its times: a file that is replaced by rename twice within the clock of its file system is still seen.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::tokio_postgres::NoTls;
use deadpool_postgres::tokio_postgres::config::{Config, SslMode};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;

use super::error::StartError;
use super::instruments::Instruments;
use super::password::{Password, PasswordFile};
use super::record_view::Record;
use super::record_watch::RecordWatch;
use super::settings::Settings;

/// How often the record is read where nothing says that it has changed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A connection on which nothing is acknowledged for this long is dead: its container was frozen or its network cut.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// The node that the record names, with the connections to it.
#[derive(Debug)]
pub struct Target {
    /// The node's name, which is its host name too.
    pub primary: String,
    /// The record's epoch when this node was named.
    pub epoch: u64,
    /// Connections to this node only. Closed when another node is named.
    pub pool: Pool,
}

/// Follows the record.
#[derive(Debug)]
pub struct Primary {
    record: PathBuf,
    password_file: PasswordFile,
    database: String,
    database_user: String,
    database_port: u16,
    connect_timeout: Duration,
    pool_size: usize,
    /// Taken by whoever changes the target, so that a changed record and a changed password cannot undo each other.
    password: Mutex<Password>,
    target: watch::Sender<Option<Arc<Target>>>,
    fault: watch::Sender<Option<String>>,
    instruments: Arc<Instruments>,
}

impl Primary {
    /// Reads the password, and the record for the first time. A record that cannot be read is no reason not to start:
    /// the app says so in `/ready` and goes on looking.
    ///
    /// # Errors
    /// The password file cannot be used.
    pub async fn open(settings: &Settings, instruments: Arc<Instruments>) -> Result<Self, StartError> {
        let password_file = PasswordFile::at(&settings.password_file);
        let password = password_file.read()?;
        let primary = Self {
            record: settings.record.clone(),
            password_file,
            database: settings.database.clone(),
            database_user: settings.database_user.clone(),
            database_port: settings.database_port,
            connect_timeout: settings.ready_deadline,
            pool_size: settings.pool_size,
            password: Mutex::new(password),
            target: watch::Sender::new(None),
            fault: watch::Sender::new(None),
            instruments,
        };
        primary.look().await;
        Ok(primary)
    }

    /// The node to ask, and a way to learn that another one was named while it is being asked.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Target>>> {
        self.target.subscribe()
    }

    /// Why the record could not be read just now; nothing when it could.
    pub fn fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }

    /// Looks at the record for ever.
    pub async fn follow(&self) {
        let mut watch = RecordWatch::of(&self.record);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = watch.replaced() => {}
            }
            self.look().await;
        }
    }

    /// Reads the record once and moves to the node it names. What cannot be read changes nothing: the last known
    /// primary is still the best guess, and every check asks it whether it is writable.
    async fn look(&self) {
        let path = self.record.clone();
        let read = match tokio::task::spawn_blocking(move || Record::read(&path)).await {
            Ok(read) => read,
            // Only at the runtime's own end.
            Err(_) => return,
        };
        match read {
            Ok(record) => {
                self.say_fault(None);
                self.instruments.record_epoch.set(epoch_gauge(record.epoch));
                self.move_to(&record).await;
            }
            Err(fault) => {
                self.instruments.record_read_failures.inc();
                self.say_fault(Some(fault.to_string()));
            }
        }
    }

    fn say_fault(&self, fault: Option<String>) {
        self.fault.send_if_modified(|known| {
            if *known == fault {
                return false;
            }
            match &fault {
                Some(fault) if self.target.borrow().is_none() => {
                    log::warn!("{fault}; no primary is known yet");
                }
                Some(fault) => log::warn!("{fault}; the last known primary is kept"),
                None => log::info!("the record can be read again"),
            }
            *known = fault;
            true
        });
    }

    async fn move_to(&self, record: &Record) {
        let known = self.target.borrow().clone();
        if let Some(known) = &known
            && known.primary == record.primary
            && known.epoch == record.epoch
        {
            return;
        }
        let password = self.password.lock().await;
        match &known {
            None => log::info!("the primary is '{}' (epoch {})", record.primary, record.epoch),
            Some(known) => {
                log::info!("the primary was '{}' (epoch {}), is '{}' (epoch {})", known.primary, known.epoch, record.primary, record.epoch);
                if known.primary != record.primary {
                    self.instruments.primary_changes.inc();
                }
            }
        }
        self.replace(self.connect(&record.primary, record.epoch, &password));
    }

    /// Reads the password file again after `target` refused the password, and replaces the pool when it has changed.
    pub async fn read_password_again(&self, target: &Target) {
        let mut password = self.password.lock().await;
        match self.password_file.read() {
            Ok(read) if read != *password => {
                log::info!("the password file has changed: connecting again");
                *password = read;
                self.replace(self.connect(&target.primary, target.epoch, &password));
            }
            Ok(_) => {}
            Err(error) => log::warn!("{error}"),
        }
    }

    /// The old pool's idle connections are dropped here, those in use when they come back.
    fn replace(&self, target: Option<Target>) {
        let Some(target) = target else { return };
        if let Some(old) = self.target.send_replace(Some(Arc::new(target))) {
            old.pool.close();
        }
    }

    /// Makes the pool; it connects when it is first asked.
    fn connect(&self, primary: &str, epoch: u64, password: &Password) -> Option<Target> {
        let mut config = Config::new();
        config
            .host(primary)
            .port(self.database_port)
            .dbname(&self.database)
            .user(&self.database_user)
            .password(password.expose())
            .application_name("understudy-app")
            .ssl_mode(SslMode::Disable)
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(SILENCE_LIMIT)
            .keepalives(true)
            .keepalives_idle(SILENCE_LIMIT)
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3);
        // The check is itself a query, so a recycled connection needs no query of its own.
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        match Pool::builder(manager).max_size(self.pool_size).build() {
            Ok(pool) => Some(Target { primary: primary.to_owned(), epoch, pool }),
            Err(error) => {
                log::error!("cannot make a pool for '{primary}': {error}");
                None
            }
        }
    }
}

/// The gauge is signed; an epoch that does not fit would need more failovers than there are nanoseconds in a century.
fn epoch_gauge(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}
