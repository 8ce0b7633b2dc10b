use std::path::Path;

use super::*;

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let overlay = Overlay::collect(env.iter().map(|(name, value)| (name.into(), value.into())))?;
    Config::from_sources(&Source::parse(Path::new("liftwatch.toml"), text.to_owned())?, &overlay)
}

/// Expects that the file and the environment are refused in exactly these words.
fn check_refused(text: &str, env: &[(&str, &str)], expected: &str) {
    assert_eq!(load(text, env).unwrap_err().to_string(), expected, "{text} {env:?}");
}

#[test]
fn the_example_is_the_defaults() {
    assert_eq!(load(template::EXAMPLE, &[]).unwrap(), Config::default());
    assert_eq!(load("", &[]).unwrap(), Config::default());
}

#[test]
fn the_example_describes_every_setting_and_no_other() {
    let mut section = "";
    let mut described: Vec<String> = Vec::new();
    for line in template::EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.trim_start_matches('#').split_once(" = ")
            && !name.contains(' ')
        {
            described.push(format!("{section}.{name}"));
        }
    }
    let mut known = error::known_keys();
    known.retain(|key| key != "alerting.thresholds" && key != "retention.division");
    known.sort();
    described.sort();
    assert_eq!(described, known);
}

#[test]
fn what_is_printed_loads_again_as_it_was() {
    let text = "[database]\nurl = \"postgres://u:p@h/d?x=\\\"1\\\"\"\nhome = \"/srv/db\"\n[broker]\n\
                listen = \"[::1]:0\"\nbudget_bytes = 12345678\n[log]\nformat = \"json\"\n\
                [alerting.thresholds.350100]\ne1_s = 20\n";
    let config = load(text, &[]).unwrap();
    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
    let printed = Config::default().to_toml();
    assert_eq!(load(&printed, &[]).unwrap(), Config::default());
    assert!(printed.contains("# MQTT 3.1.1 and 5 over TCP."), "comments are kept");
}

#[test]
fn the_environment_goes_before_the_file() {
    let env = [
        ("LIFTWATCH_WEB__LISTEN", "[::1]:9000"),
        ("LIFTWATCH_BROKER__BUDGET_BYTES", "1GiB"),
        ("LIFTWATCH_INGEST__WRITERS", "4"),
        ("LIFTWATCH_SERVICES__ALERTING", "false"),
        ("LIFTWATCH_DATABASE__URL", "postgres://u:1@h/d"),
        ("LIFTWATCH_LOG__LEVEL", ""),
        ("LIFTWATCH_TEST_ANYTHING", "1"),
        ("LIFTWATCH_BLESS", "1"),
        ("PATH", "/bin"),
    ];
    let config = load("[web]\nlisten = \"127.0.0.1:1\"\n[ingest]\nqueue_len = 7\n", &env).unwrap();
    assert_eq!(config.web.listen.to_string(), "[::1]:9000");
    assert_eq!(config.broker.budget_bytes, ByteSize::mib(1024));
    assert_eq!((config.ingest.writers, config.ingest.queue_len), (4, 7));
    assert!(!config.services.alerting);
    assert_eq!(config.database.url.as_deref(), Some("postgres://u:1@h/d"));
    assert_eq!(config.log.level, "info", "an empty variable sets nothing");
}

#[test]
fn unknown_settings_are_named_with_their_line_and_the_nearest() {
    check_refused(
        "\n[broker]\nunacked_max = 5\nlissten = \"127.0.0.1:1\"\n",
        &[],
        "liftwatch.toml:4: unknown setting 'broker.lissten'; did you mean 'broker.listen'?",
    );
    check_refused("[brokr]\n", &[], "liftwatch.toml:1: unknown setting 'brokr'; did you mean 'broker'?");
    check_refused(
        "chunk_hours = 3\n",
        &[],
        "liftwatch.toml:1: unknown setting 'chunk_hours'; did you mean 'store.chunk_hours'?",
    );
    check_refused("[web]\nzzz = 1\n", &[], "liftwatch.toml:2: unknown setting 'web.zzz'");
    check_refused(
        "[web]\n",
        &[("LIFTWATCH_WEB__LISTN", "x")],
        "LIFTWATCH_WEB__LISTN: unknown setting 'web.listn'; did you mean 'web.listen'?",
    );
    check_refused(
        "",
        &[("LIFTWATCH_WBE__LISTEN", "x")],
        "LIFTWATCH_WBE__LISTEN: unknown setting 'wbe'; did you mean 'web'?",
    );
    check_refused(
        "",
        &[("LIFTWATCH_LISTEN", "x")],
        "environment variable LIFTWATCH_LISTEN is no setting; settings are named \
         LIFTWATCH_<SECTION>__<KEY>, such as LIFTWATCH_WEB__LISTEN",
    );
}

#[test]
fn wrong_values_say_what_is_expected() {
    check_refused(
        "[web]\nlisten = 8080\n",
        &[],
        "liftwatch.toml:2: 'web.listen' is 8080, but must be a text in quotes",
    );
    check_refused(
        "[web]\n\nlisten = \"8080\"\n",
        &[],
        "liftwatch.toml:3: 'web.listen' is \"8080\", but must be an address and a port such as \
         \"127.0.0.1:1883\" or \"[::1]:1883\"",
    );
    check_refused(
        "[broker]\nbudget_bytes = \"lots\"\n",
        &[],
        "liftwatch.toml:2: 'broker.budget_bytes' is \"lots\", but must be a size such as 1048576 or \
         \"256 MiB\"",
    );
    check_refused(
        "[log]\nformat = \"xml\"\n",
        &[],
        "liftwatch.toml:2: 'log.format' is 'xml', but must be one of auto, text, json",
    );
    check_refused(
        "",
        &[("LIFTWATCH_INGEST__WRITERS", "many")],
        "LIFTWATCH_INGEST__WRITERS: 'ingest.writers' is \"many\", but must be a whole number, not negative",
    );
    check_refused("web = 3\n", &[], "liftwatch.toml:1: 'web' is 3, but must be a table ([section])");
    let broken = load("[web]\nlisten = \n", &[]).unwrap_err().to_string();
    assert!(broken.starts_with("liftwatch.toml:2: "), "{broken}");
}

#[test]
fn thresholds_go_by_region() {
    let env = [("LIFTWATCH_ALERTING__THRESHOLDS__350102__E1_S", "25")];
    let config = load("[alerting.thresholds.350100]\ne1_s = 20\n", &env).unwrap();
    let e1_s = |area: &str| config.alerting.thresholds[&area.parse().unwrap()].e1_s;
    assert_eq!((e1_s("350100"), e1_s("350102")), (Some(20), Some(25)));
    let wrong = load("[alerting]\n\n[alerting.thresholds.3501]\ne1_s = 20\n", &[]).unwrap_err().to_string();
    assert!(wrong.starts_with("liftwatch.toml:3: 'alerting.thresholds.3501' "), "{wrong}");
    assert!(wrong.contains("6-digit division code"), "{wrong}");
}

#[test]
fn limits_hold_wherever_the_value_comes_from() {
    check_refused(
        "[ingest]\nwriters = 0\n",
        &[],
        "liftwatch.toml:2: 'ingest.writers' is 0, but must lie between 1 and 64",
    );
    check_refused(
        "[ingest]\nwriters = 1\n",
        &[("LIFTWATCH_INGEST__WRITERS", "65")],
        "LIFTWATCH_INGEST__WRITERS: 'ingest.writers' is 65, but must lie between 1 and 64",
    );
    check_refused(
        "[broker]\ntls_listen = \"127.0.0.1:8883\"\n",
        &[],
        "liftwatch.toml:2: 'broker.tls_listen' needs certificate and key under [broker.tls]: 'liftwatch pki init' \
         makes them",
    );
    check_refused(
        "[web]\nlisten = \"127.0.0.1:1883\"\n",
        &[],
        "liftwatch.toml:2: 'web.listen' is 127.0.0.1:1883, which broker.listen has already",
    );
    check_refused(
        "[database]\nurl = \"mysql://x\"\n",
        &[],
        "liftwatch.toml:2: 'database.url' must begin with postgres://, such as postgres://user@host/database",
    );
    check_refused(
        "[services]\nbroker = false\n",
        &[],
        "'services.alerting' is true, but in this version the rules read from the broker of their own process: \
         set services.broker to true as well",
    );
    assert!(load("[web]\nlisten = \"localhost:0\"\n[dispatch]\nlisten = \"127.0.0.1:0\"\n", &[]).is_ok());
}

#[test]
fn dev_is_for_loopback() {
    let inside = Config::default();
    inside.check_serve(true).unwrap();
    inside.check_serve(false).unwrap();

    let outside = load("[dispatch]\nlisten = \"0.0.0.0:50051\"\n", &[]).unwrap();
    outside.check_serve(false).unwrap();
    assert_eq!(
        outside.check_dev().unwrap_err().to_string(),
        "'dispatch.listen' is 0.0.0.0:50051, but --dev has no passwords and listens on loopback addresses \
         only: use 127.0.0.1:50051"
    );

    let web_only =
        load("[services]\nbroker = false\nalerting = false\n[broker]\nlisten = \"0.0.0.0:1\"\n", &[]);
    let web_only = web_only.unwrap();
    web_only.check_serve(false).unwrap();
    web_only.check_dev().unwrap(); // a listener that does not run does not matter
}

#[test]
fn tls_and_its_files_fit_together() {
    let pair = "[broker.tls]\ncertificate = \"s.pem\"\nkey = \"s.key\"\n";
    let listeners = "[broker]\ntls_listen = \"[::]:8883\"\nlisten = \"off\"\n";
    let config = load(&format!("{listeners}{pair}"), &[]).unwrap();
    let gate = config.broker.gate();
    assert_eq!((gate.listen, gate.tls.unwrap().listen), (None, Some("[::]:8883".parse().unwrap())));
    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
    assert!(load(pair, &[]).unwrap().broker.gate().tls.is_none(), "nothing listens with it");
    check_refused(
        &format!("{pair}crl = \"crl.pem\"\n"),
        &[],
        "liftwatch.toml:4: 'broker.tls.crl' revokes certificates of client_ca, which is not given",
    );
    check_refused(
        &format!("{pair}client_certificates = \"required\"\n"),
        &[],
        "liftwatch.toml:4: 'broker.tls.client_certificates' is required, but client_ca, which issues them, is not given",
    );
    check_refused(
        "[broker]\nlisten = \"off\"\n",
        &[],
        "liftwatch.toml:2: 'broker.listen' is off, and no other listener of the broker is set: nobody could connect",
    );
    check_refused(
        "[broker.tls]\ncertificat = \"s.pem\"\n",
        &[],
        "liftwatch.toml:2: unknown setting 'broker.tls.certificat'; did you mean 'broker.tls.certificate'?",
    );
}

#[test]
fn bounds_of_sessions_reach_the_gate() {
    let config = load("[broker.sessions]\nkept_max = 7\nkeep_alive_max_s = 30\n", &[]).unwrap();
    let gate = config.broker.gate();
    assert_eq!((gate.sessions_max, gate.keep_alive_max), (7, std::time::Duration::from_secs(30)));
    assert_eq!(gate.session_expiry_max, ::broker::GateConfig::default().session_expiry_max);
    check_refused(
        "[broker.sessions]\nkeep_alive_max_s = 70000\n",
        &[],
        "liftwatch.toml:2: 'broker.sessions.keep_alive_max_s' is 70000, but must lie between 5 and 65535",
    );
}

#[test]
fn limits_and_lists_are_read() {
    let env = [("LIFTWATCH_BROKER__LIMITS__TRUSTED", "10.0.0.0/8, 192.0.2.1"), ("LIFTWATCH_WEB__LISTEN", "")];
    let config = load("[broker.limits]\nclient_bytes_per_s = \"1 MiB\"\ntrusted = []\n", &env).unwrap();
    let limits = config.broker.gate().limits;
    assert_eq!(limits.trusted.len(), 2);
    assert_eq!(limits.client_bytes_per_s, 1 << 20);
    let websocket = "[broker.websocket]\nlisten = \"127.0.0.1:0\"\norigins = [\"https://a.example\"]\n";
    let websocket = load(websocket, &[]).unwrap().broker.gate().websocket.unwrap();
    assert_eq!((websocket.path.as_str(), websocket.origins.len()), ("/mqtt", 1));
    check_refused(
        "[broker.limits]\ntrusted = [\"10.0.0.0/99\"]\n",
        &[],
        "liftwatch.toml:2: 'broker.limits.trusted' holds '10.0.0.0/99', but must hold networks such as 10.0.0.0/8",
    );
    check_refused(
        "[broker.limits]\nclient_messages_per_s = 0\n",
        &[],
        "liftwatch.toml:2: 'broker.limits.client_messages_per_s' is 0, but must lie between 1 and 10000000",
    );
}

#[test]
fn retention_is_by_table_and_division() {
    let text =
        "[retention]\ntelemetry = 90\ntelemetry_1h = 400\n[retention.division.350102]\ntelemetry = 30\n";
    let config = load(text, &[("LIFTWATCH_RETENTION__QUARANTINE", "7")]).unwrap();
    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
    let days = |span: std::time::Duration| span.as_secs() / 86_400;
    let retention = config.retention.of_store();
    assert_eq!(days(retention.admitted()), 90);
    assert_eq!(days(retention.span(store::Kept::Telemetry1h)), 400);
    assert_eq!(days(retention.span(store::Kept::Quarantine)), 7);
    assert_eq!(days(retention.span_of(store::Kept::Telemetry, "350102".parse().unwrap())), 30);
    check_refused(
        "[retention]\nfault = 0\n",
        &[],
        "liftwatch.toml:2: 'retention.fault' is 0, but must lie between 1 and 36500",
    );
    check_refused(
        "[retention.division.350102]\ntelemetry = 0\n",
        &[],
        "liftwatch.toml:1: 'retention.division' says telemetry = 0 for 350102, but days must lie between 1 and 36500",
    );
    check_refused(
        "[store]\nretention_days = 90\n",
        &[],
        "liftwatch.toml:2: 'store.retention_days' has moved: write telemetry = 90 under [retention], where every table \
         has its own span",
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/liftwatch.toml")), []).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file /nowhere/liftwatch.toml");
}
