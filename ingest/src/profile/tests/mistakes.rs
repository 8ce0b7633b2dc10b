//! Every mistake has its place, and a way out where one is near.

use crate::profile::{Profiles, check};

/// The mistakes of a profile with these lines after its head, as text.
fn mistakes(lines: &str) -> Vec<String> {
    let text = format!("name = \"x\"\ntitle = \"X\"\n{lines}");
    check(&text, Profiles::shipped()).iter().map(ToString::to_string).collect()
}

fn one(lines: &str, expected: &str) {
    assert_eq!(mistakes(lines), [expected.to_owned()], "{lines}");
}

#[test]
fn each_mistake_has_a_line_and_a_column() {
    one("titel = \"Y\"", "3:1: unknown key 'titel'; did you mean 'title'?");
    one(
        "kinds = [\"lift\", \"excalator\"]",
        "3:18: unknown device kind 'excalator'; did you mean 'escalator'?",
    );
    one("extends = \"retrofitt\"", "3:11: unknown profile 'retrofitt'; did you mean 'retrofit'?");
    one("[fields.door_zon]\nnames = \"z\"", "3:9: unknown field 'door_zon'; did you mean 'door_zone'?");
    one("[fields.door_zone]\nname = \"z\"", "4:1: unknown key 'name'; did you mean 'names'?");
    one(
        "[fields.service_mode]\nvalues = { 0 = \"normale\" }",
        "4:16: 'normale' is no value of service_mode: those are out_of_service, normal, inspection, fire_recall, \
         firefighter, emergency_power, earthquake, unknown; did you mean 'normal'?",
    );
    one("[codes.lift]\n1 = \"entrapmnt\"", "4:5: unknown slug 'entrapmnt'; did you mean 'entrapment'?");
    one("[codes.lift]\n1 = [\"entrapment\"]\n01 = \"top_overrun\"", "5:1: code '01' stands here twice");
    one("[codes.lift]\nzz = \"entrapment\"", "4:1: 'zz' is no code of this form (1 to 16 characters)");
    one("[codes.lift]\n1 = \"esc_reversal\"", "4:5: 'esc_reversal' is no fault of a device of [codes.lift]");
    one("[codes]\nform = \"octal\"", "4:8: form is \"decimal\", \"hex\" or \"text\"");
    one("[clock]\nzone = \"Asia/Shanghai\"", "4:8: a zone is an offset such as \"+08:00\" or \"Z\"");
    one(
        "[fields.velocity_mm_s]\nunit = \"0.1 km/h\"",
        "4:8: '0.1 km/h' is no unit of velocity_mm_s: those are mm/s, cm/s, m/s, m/min",
    );
    one("[fields.velocity_mm_s]\nscale = 0", "4:9: scale is a number other than 0");
    one("[fields.floor]\nvalues = { 1 = \"2\" }", "4:1: 'values' does not fit floor");
    one("[fields.door_zone]\nseveral = \"most\"", "4:11: several of door_zone is one of: any, all");
    one("booleans = 7", "3:12: expected a table of the vendor's values, found integer");
    one(
        "[clock]\ntext = \"[hour]:[minute]\"",
        "4:8: a layout of a moment has a whole date and a time of day",
    );
    one(
        "[fields.floor]\nnames = \"a.b.c.d.e.f\"",
        "4:9: a name has at most 5 parts: what lies deeper is not read",
    );
    one(&format!("# {}", "x".repeat(1 << 20)), "1:1: a profile has at most 1 MiB");
    one(
        "extends = \"retrofit\"\n[fields.velocity_mm_s]\nunit = \"cm/s\"",
        "5:1: another unit of velocity_mm_s needs names of its own: those inherited keep theirs",
    );
    one(
        "open_json = true\n[escalator.car_status]\nvalues = { 1 = \"running\" }",
        "4:2: open_json = true reads the open JSON as it is: 'escalator' has no effect",
    );
    one(
        "open_json = true\n[clock]\nnumber = \"s\"",
        "4:1: open_json = true reads the open JSON as it is: 'clock' has no effect",
    );
}

#[test]
fn all_mistakes_are_told_in_order() {
    let found = mistakes("titel = \"Y\"\n[codes.lift]\n1 = \"nothing\"\n2 = 7\n[feilds.x]\n");
    assert_eq!(
        found,
        [
            "3:1: unknown key 'titel'; did you mean 'title'?",
            "5:5: unknown slug 'nothing'",
            "6:5: expected a slug of the taxonomy, found integer",
            "7:2: unknown key 'feilds'; did you mean 'fields'?",
        ]
    );
    let broken = check("name = \"x\ntitle = 7\n", Profiles::shipped());
    assert!(!broken.is_empty() && broken[0].line == 1, "{broken:?}");
    let missing: Vec<_> = check("", Profiles::shipped()).iter().map(ToString::to_string).collect();
    assert!(
        missing[0].contains("'name' is missing") && missing[1].contains("'title' is missing"),
        "{missing:?}"
    );
    let name = check("name = \"Bad Name\"\ntitle = \"x\"", Profiles::shipped());
    assert_eq!(name[0].to_string(), "1:8: a name has 1 to 32 characters of a-z 0-9 _");
}
