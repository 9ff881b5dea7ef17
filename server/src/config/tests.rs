//! Layering and its errors, as tables.

use std::fs;

use super::*;

const FILE: &str = "/etc/inflightkv.toml";

/// What a file's text, variables and flags come to. The file stands in for the one that `--config` would name.
fn load(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<(Effective, Config), String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("inflightkv.toml");
    fs::write(&path, file).expect("writing a file");
    let mut all = vec![("config", path.clone().into_os_string())];
    all.extend(
        flags
            .iter()
            .map(|(name, value)| (*name, OsString::from(value))),
    );
    let environment = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Effective::load(all, environment)
        .and_then(|effective| Config::new(&effective).map(|config| (effective, config)))
        .map_err(|error| error.to_string().replace(&path.display().to_string(), FILE))
}

fn config(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Config {
    load(file, variables, flags)
        .expect("a valid configuration")
        .1
}

fn error(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    let message = load(file, variables, flags).expect_err("an invalid configuration");
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

fn defaults() -> Config {
    Config::new(&Effective::defaults()).expect("the defaults are valid")
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let seconds = Duration::from_secs;
    let config = config("data-dir = '/d'", &[], &[]);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let expected = Config {
        listen: "127.0.0.1:8080".parse().expect("an address"),
        threads: cores,
        partitions: 128,
        node_id: "node-1".to_owned(),
        follow: None,
        tls_ca: None,
        shutdown_timeout: seconds(10),
        persistence: Some(Persistence {
            start_off: false,
            data_dir: PathBuf::from("/d"),
            wal_sync: WalSync::Interval(seconds(1)),
            wal_segment_bytes: 64 << 20,
            wal_segment_age: seconds(3_600),
            wal_compress: Some(WalCompress::Zstd),
            wal_keep: Duration::ZERO,
            snapshot_interval: seconds(900),
            snapshot_after_bytes: 256 << 20,
            snapshot_full_every: 8,
            recovery: Recovery::Strict,
        }),
        memory: Memory {
            bytes_max: None,
            eviction: "none",
        },
        validation: None,
        auth: None,
        audit_log: None,
        tls: None,
        refuse_on_load: false,
        scrub_interval: Some(Duration::from_secs(86_400)),
        scrub_rate: 16 << 20,
        verify_reads: true,
        compression: Compression {
            mode: "off",
            value_bytes_min: 64,
            dictionaries: true,
            batches: false,
            cold_after: Duration::from_secs(30),
            keys: false,
            cpu_percent: 10,
        },
        limits: Limits {
            key_bytes_max: 1_024,
            value_bytes_max: 1 << 20,
            batch_operations_max: 10_000,
            batch_bytes_max: 16 << 20,
            header_bytes_max: 64 << 10,
            header_timeout: seconds(10),
            body_timeout: seconds(30),
            connections_max: 10_000,
            connections_per_address_max: None,
            streams_max: 256,
            requests_per_connection_max: None,
            requests_per_address_max: None,
            upload_bytes_max: 256 << 20,
            queue_delay_max: seconds(1),
        },
        log_format: None,
        log_level: LogLevel::Info,
        log_requests: Sampling::Off,
        log_keys: Keys::Hashed,
        slow_op: Some(Duration::from_millis(10)),
        otlp_endpoint: None,
        trace_requests: Sampling::All,
        check_only: false,
        notices: Vec::new(),
    };
    assert_eq!(config, expected);
}

#[test]
fn later_layers_win_and_each_value_knows_its_place() {
    let (effective, config) = load(
        "\n# a comment\nthreads = 3\npartitions = 16\nnode-id = 'file'\n",
        &[
            ("INFLIGHTKV_PARTITIONS", "32"),
            ("INFLIGHTKV_NODE_ID", "variable"),
        ],
        &[("node-id", "flag")],
    )
    .expect("a valid configuration");
    assert_eq!((config.threads, config.partitions), (3, 32));
    assert_eq!(config.node_id, "flag");
    let printed = effective.print();
    for (start, end) in [
        ("threads = 3 ", "line 3"),
        (
            "partitions = 32 ",
            "# environment variable INFLIGHTKV_PARTITIONS",
        ),
        ("node-id = \"flag\" ", "# flag --node-id"),
        ("wal-sync = \"interval\" ", "# default"),
        (
            "# data-dir is not set ",
            "# default: the store is in memory only",
        ),
    ] {
        let line = printed
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no line {start:?} in\n{printed}"));
        assert!(line.ends_with(end), "{line}");
    }
}

#[test]
fn every_kind_of_value_can_be_written_in_the_file() {
    let config = config(
        "listen = '0.0.0.0:9'\ninsecure-no-auth = true\ndata-dir = 'd'\nwal-sync = \"always\"\n\
         wal-segment-size = 131072\nwal-segment-age = 90\nwal-compress = 'off'\nwal-keep = '2d'\nsnapshot-interval = '1500ms'\nsnapshot-after = '1MB'\n\
         recovery = 'point-in-time'\nlog-format = 'json'\nlog-level = 'warn'\nmax-batch-operations = 0x10\n",
        &[],
        &[],
    );
    let persistence = config.persistence.expect("a data directory");
    assert_eq!(config.listen.to_string(), "0.0.0.0:9");
    assert_eq!(persistence.wal_sync, WalSync::Always);
    assert_eq!(persistence.wal_segment_bytes, 131_072);
    assert_eq!(persistence.wal_segment_age, Duration::from_secs(90));
    assert_eq!(persistence.wal_compress, None);
    assert_eq!(persistence.wal_keep, Duration::from_secs(2 * 86_400));
    assert_eq!(persistence.snapshot_interval, Duration::from_millis(1_500));
    assert_eq!(persistence.snapshot_after_bytes, 1_000_000);
    assert_eq!(persistence.recovery, Recovery::PointInTime);
    assert_eq!(config.log_format, Some(LogFormat::Json));
    assert_eq!(config.log_level, LogLevel::Warn);
    assert_eq!(config.limits.batch_operations_max, 16);
}

#[test]
fn an_error_names_place_key_found_and_right() {
    let count = "threads: found \"zero\"; expected a whole number from 1 to 1024";
    for (file, variables, flags, message) in [
        ("", &[][..], &[("threads", "zero")][..], format!("flag --threads: {count}")),
        (
            "",
            &[("INFLIGHTKV_THREADS", "zero")],
            &[],
            format!("environment variable INFLIGHTKV_THREADS: {count}"),
        ),
        ("\nthreads = 'zero'", &[], &[], format!("{FILE} line 2: {count}")),
        (
            "threads = 0",
            &[],
            &[("threads", "2")],
            format!("{FILE} line 1: threads: found 0; expected a whole number from 1 to 1024"),
        ),
        (
            "partitions = 100",
            &[],
            &[],
            format!("{FILE} line 1: partitions: found 100; expected a power of two from 1 to 65536"),
        ),
        (
            "log-level = ['info']",
            &[],
            &[],
            format!(
                "{FILE} line 1: log-level: found an array; expected one of off, error, warn, info, debug, trace"
            ),
        ),
        (
            "wal_sync = 'always'",
            &[],
            &[],
            format!("{FILE} line 1: found the unknown key \"wal_sync\"; expected wal-sync, perhaps"),
        ),
        (
            "threads = 1\nthreads = 2",
            &[],
            &[],
            format!("{FILE} line 2: found what is not TOML; duplicate key"),
        ),
        (
            "config = 'other.toml'",
            &[],
            &[],
            format!(
                "{FILE} line 1: config: found in a file; expected only as a flag or a variable, since one file does not \
                 name another"
            ),
        ),
        (
            "",
            &[("INFLIGHTKV_WAL_SINK", "os")],
            &[],
            "environment variable INFLIGHTKV_WAL_SINK: found an unknown setting; expected INFLIGHTKV_WAL_SYNC, perhaps"
                .to_owned(),
        ),
    ] {
        assert_eq!(error(file, variables, flags), message);
    }
}

#[test]
fn a_range_is_named_in_the_units_of_the_setting() {
    let message = error("", &[], &[("wal-segment-size", "1KiB"), ("data-dir", "d")]);
    assert_eq!(
        message,
        "flag --wal-segment-size: wal-segment-size: found \"1KiB\"; expected a size from 8KiB to 16GiB, in bytes or such \
         as 512KiB, 64MiB, 1GiB or 64MB"
    );
    let message = error("header-timeout = '2h'", &[], &[]);
    assert!(
        message.contains("found \"2h\"; expected a duration from 10ms to 1h"),
        "{message}"
    );
}

#[test]
fn settings_of_no_such_name_are_refused_everywhere() {
    assert!(error("sharding = 'on'", &[], &[]).contains("the unknown key \"sharding\""));
    assert!(error("[wal]\nsync = 'os'", &[], &[]).contains("settings without tables"));
    assert!(
        error("", &[("INFLIGHTKV_", "")], &[]).contains("variable INFLIGHTKV_: found an unknown")
    );
    let linked = error(
        "",
        &[("INFLIGHTKV_PORT_8080_TCP", "tcp://10.0.0.1:8080")],
        &[],
    );
    assert!(linked.contains("enableServiceLinks"), "{linked}");
}

#[test]
fn variables_of_others_are_left_alone() {
    let config = config(
        "",
        &[
            ("INFLIGHTKV_URL", "http://x"),
            ("INFLIGHT", "x"),
            ("THREADS", "x"),
        ],
        &[],
    );
    assert_eq!(config, defaults());
}

#[test]
fn an_address_others_can_reach_must_be_asked_for() {
    for address in [
        "0.0.0.0:8080",
        "[::]:8080",
        "192.0.2.1:1",
        "[::ffff:192.0.2.1]:1",
    ] {
        let message = error("", &[], &[("listen", address)]);
        assert!(
            message.starts_with("flag --listen: listen: found"),
            "{message}"
        );
        assert!(message.contains("--insecure-no-auth"), "{message}");
        config(
            "",
            &[("INFLIGHTKV_INSECURE_NO_AUTH", "true")],
            &[("listen", address)],
        );
    }
    for address in [
        "127.0.0.1:1",
        "127.1.2.3:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        ":0",
    ] {
        config("", &[], &[("listen", address)]);
    }
}

#[test]
fn persistence_without_a_directory_is_an_error_as_a_flag_and_a_notice_elsewhere() {
    let message = error("", &[], &[("wal-sync", "always")]);
    assert!(
        message.starts_with("flag --wal-sync: wal-sync: found without data-dir"),
        "{message}"
    );
    let elsewhere = config(
        "wal-sync = 'always'\nrecovery = 'strict'",
        &[("INFLIGHTKV_SNAPSHOT_AFTER", "1GiB")],
        &[],
    );
    assert_eq!(elsewhere.persistence, None);
    assert_eq!(elsewhere.notices.len(), 2, "{:?}", elsewhere.notices);
    assert!(
        config("wal-sync = 'always'", &[], &[("data-dir", "d")])
            .notices
            .is_empty()
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_who_named_it() {
    let flags = [("config", OsString::from("/nonexistent/x.toml"))];
    let message = Effective::load(flags, [])
        .expect_err("no such file")
        .to_string();
    assert!(
        message.starts_with(
            "flag --config: config: found \"/nonexistent/x.toml\", which cannot be read"
        ),
        "{message}"
    );
    let variables = [(
        OsString::from("INFLIGHTKV_CONFIG"),
        OsString::from("/nonexistent/x.toml"),
    )];
    let message = Effective::load([], variables)
        .expect_err("no such file")
        .to_string();
    assert!(
        message.starts_with("environment variable INFLIGHTKV_CONFIG: config: found"),
        "{message}"
    );
}

#[test]
fn the_default_file_holds_every_setting_and_reads_back_as_the_defaults() {
    let text = print::default_file();
    for setting in SETTINGS
        .iter()
        .filter(|setting| setting.name != settings::CONFIG)
    {
        let given = format!("\n{} = ", setting.name);
        let shown = format!("\n# {} = ", setting.name);
        assert!(
            text.contains(&given) || text.contains(&shown),
            "{}",
            setting.name
        );
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    assert_eq!(config(&text, &[], &[]), defaults());

    // The lines that are only shown must be valid as well.
    let shown: String = text
        .lines()
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let setting = bare
                .split_once(" = ")
                .and_then(|(name, _)| settings::find(name));
            if setting.is_some() {
                format!("{bare}\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    let all = config(&shown, &[], &[]);
    assert_eq!(all.threads, 4);
    assert!(all.persistence.is_some());
}

#[test]
fn what_config_prints_is_a_file_that_means_the_same() {
    let (effective, config) = load(
        "wal-sync = 'os'\nnode-id = 'a \"quoted\" \\ name'",
        &[("INFLIGHTKV_MAX_VALUE_SIZE", "65537")],
        &[
            ("data-dir", "/tmp/with space"),
            ("shutdown-timeout", "1500ms"),
        ],
    )
    .expect("a valid configuration");
    let (_, again) = load(&effective.print(), &[], &[]).expect("what was printed is valid");
    assert_eq!(again, config);
}

#[test]
fn memory_for_bodies_has_to_hold_the_largest() {
    let bytes = |flags: &[(&'static str, &str)]| config("", &[], flags).limits.upload_bytes_max;
    assert_eq!(bytes(&[("max-value-size", "1GiB")]), 4 << 30);
    assert_eq!(bytes(&[("max-upload-memory", "16MiB")]), 16 << 20);
    let message = error("", &[], &[("max-upload-memory", "15MiB")]);
    assert!(
        message.starts_with("flag --max-upload-memory: max-upload-memory: found "),
        "{message}"
    );
    assert!(
        message.contains("below max-batch-size of 16777216 bytes"),
        "{message}"
    );
}
