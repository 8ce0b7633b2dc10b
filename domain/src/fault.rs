//! The fault, event and alarm taxonomy (故障/事件/报警分类): DOMAIN.md 4 as data.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How grave (DOMAIN.md 4): S1 life safety, page dispatch now; S2 unsafe or dead, mechanic now; S3 degraded,
/// work order; S4 information. Orders from the gravest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(i16)]
pub enum Severity {
    /// 生命安全.
    S1 = 1,
    /// Unsafe or dead.
    S2 = 2,
    /// Degraded.
    S3 = 3,
    /// Information.
    S4 = 4,
}

impl Severity {
    /// 1 to 4.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// From 1 to 4.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::S1),
            2 => Some(Self::S2),
            3 => Some(Self::S3),
            4 => Some(Self::S4),
            _ => None,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "S{}", self.number())
    }
}

impl FromStr for Severity {
    type Err = crate::ParseSlugError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "S1" | "s1" => Ok(Self::S1),
            "S2" | "s2" => Ok(Self::S2),
            "S3" | "s3" => Ok(Self::S3),
            "S4" | "s4" => Ok(Self::S4),
            _ => Err(crate::ParseSlugError { what: "severity", text: text.to_owned() }),
        }
    }
}

/// The three groups of GB/T 24476 message codes. Taken from the table, never from the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultGroup {
    /// 故障.
    Fault,
    /// 事件.
    Event,
    /// 报警.
    Alarm,
}

/// One row of the taxonomy.
#[derive(Debug, PartialEq, Eq)]
pub struct FaultKind {
    /// Its name everywhere. Stable: add, never rename.
    pub slug: &'static str,
    /// 中文.
    pub chinese: &'static str,
    /// In English.
    pub english: &'static str,
    /// GB/T 24476-2017 message code, or the Chongqing addition (91 to 93).
    pub gb_code: Option<u16>,
    /// Fault, event or alarm.
    pub group: FaultGroup,
    /// Severity by default.
    pub severity: Severity,
    /// Opens an S1 `safety` case when somebody is in the car.
    pub safety_if_people: bool,
    /// Applies to lifts.
    pub lift: bool,
    /// Applies to escalators and moving walks.
    pub escalator: bool,
}

impl FaultKind {
    /// Whether a device code of this kind says that people are shut in (rule E3).
    pub fn is_entrapment(&self) -> bool {
        matches!(self.slug, "entrapment" | "entrapment_at_level" | "entrapment_between_floors")
    }

    /// An S1 fault of the taxonomy: raises an alarm by itself, without any other rule.
    pub fn is_life_safety_fault(&self) -> bool {
        self.group == FaultGroup::Fault && self.severity == Severity::S1
    }
}

#[allow(clippy::too_many_arguments)] // a table row
const fn kind(
    slug: &'static str,
    chinese: &'static str,
    english: &'static str,
    gb_code: Option<u16>,
    group: FaultGroup,
    severity: Severity,
    safety_if_people: bool,
    devices: &'static str,
) -> FaultKind {
    let device = devices.as_bytes()[0];
    FaultKind {
        slug,
        chinese,
        english,
        gb_code,
        group,
        severity,
        safety_if_people,
        lift: device != b'E',
        escalator: device != b'L',
    }
}

/// The whole table, in the order of DOMAIN.md 4. The last letter: L lift, E escalator and walk, B both.
#[rustfmt::skip]
pub static FAULTS: &[FaultKind] = &[
    kind("no_fault", "无故障", "no active fault", Some(0), FaultGroup::Event, Severity::S4, false, "B"),
    kind("safety_circuit_open", "安全回路断路", "safety circuit open while running", Some(1), FaultGroup::Fault, Severity::S2, false, "L"),
    kind("door_close_fault", "关门故障", "door does not close", Some(2), FaultGroup::Fault, Severity::S3, false, "L"),
    kind("door_open_fault", "开门故障", "door does not open", Some(3), FaultGroup::Fault, Severity::S3, false, "L"),
    kind("stop_outside_zone", "开锁区域外停止", "car stopped outside unlocking zone", Some(4), FaultGroup::Fault, Severity::S2, false, "L"),
    kind("unintended_movement", "轿厢意外移动", "unintended car movement", Some(5), FaultGroup::Fault, Severity::S1, false, "L"),
    kind("run_time_limiter", "电动机运转时间限制器动作", "motor run-time limiter tripped", Some(6), FaultGroup::Fault, Severity::S2, false, "L"),
    kind("position_lost", "楼层位置丢失", "floor position lost", Some(7), FaultGroup::Fault, Severity::S3, false, "L"),
    kind("restart_prevented", "防止电梯再运行故障", "restart prevention", Some(8), FaultGroup::Fault, Severity::S2, false, "L"),
    kind("top_overrun", "冲顶", "ran past the top", Some(92), FaultGroup::Fault, Severity::S1, false, "L"),
    kind("pit_overrun", "蹲底", "ran into the pit", Some(91), FaultGroup::Fault, Severity::S1, false, "L"),
    kind("overspeed", "超速", "car overspeed", None, FaultGroup::Fault, Severity::S1, false, "L"),
    kind("door_opened_running", "运行中开门", "door opened while moving", None, FaultGroup::Fault, Severity::S1, false, "L"),
    kind("ran_door_open", "开门走车", "moved with door open", None, FaultGroup::Fault, Severity::S1, false, "L"),
    kind("door_open_between_floors", "非平层开门", "door open between floors", None, FaultGroup::Fault, Severity::S1, false, "L"),
    kind("door_lock_open", "门锁回路断开", "door-lock circuit open", None, FaultGroup::Fault, Severity::S2, false, "L"),
    kind("door_cycling", "反复开关门", "repeated cycling at one stop", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("door_open_long", "长时间开门", "held open too long", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("door_motor_blocked", "门机堵转", "door motor blocked", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("door_obstructed", "关门受阻", "obstructed when closing", None, FaultGroup::Fault, Severity::S4, false, "L"),
    kind("call_button_stuck", "按钮粘连", "call or landing button stuck", None, FaultGroup::Fault, Severity::S4, false, "L"),
    kind("abnormal_speed", "速度异常", "speed out of band", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("abnormal_vibration", "异常振动", "vibration", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("car_impact", "轿厢撞击", "impact on car or door", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("brake_fault", "制动系统故障", "brake system fault", None, FaultGroup::Fault, Severity::S2, false, "L"),
    kind("self_test_failed", "自检失败", "self-test failure", None, FaultGroup::Fault, Severity::S2, false, "L"),
    kind("governor_safety_gear", "限速器/安全钳动作", "governor or safety gear acted", None, FaultGroup::Fault, Severity::S2, true, "L"),
    kind("shaft_device_fault", "井道装置故障", "shaft device fault", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("load_measure_fault", "称重故障", "load measurement fault", None, FaultGroup::Fault, Severity::S3, false, "L"),
    kind("controller_fault", "控制系统故障", "controller", None, FaultGroup::Fault, Severity::S2, false, "B"),
    kind("controller_supply_fault", "控制电源故障", "controller supply", None, FaultGroup::Fault, Severity::S2, false, "B"),
    kind("drive_fault", "驱动故障", "drive or motor fault", None, FaultGroup::Fault, Severity::S2, false, "B"),
    kind("drive_overtemp", "驱动过热", "drive too hot", None, FaultGroup::Fault, Severity::S3, false, "B"),
    kind("sensor_fault", "传感器故障", "terminal sensor fault", None, FaultGroup::Fault, Severity::S3, false, "B"),
    kind("battery_low", "电池低电量", "backup battery low or bad", None, FaultGroup::Fault, Severity::S3, false, "B"),
    kind("auto_mode", "恢复自动运行", "back to automatic", Some(40), FaultGroup::Event, Severity::S4, false, "B"),
    kind("power_off", "主电源断电", "main power off", Some(41), FaultGroup::Event, Severity::S3, false, "B"),
    kind("out_of_service", "进入停止服务", "entered out of service", Some(42), FaultGroup::Event, Severity::S4, false, "L"),
    kind("inspection_mode", "进入检修运行", "entered inspection", Some(43), FaultGroup::Event, Severity::S4, false, "B"),
    kind("fire_recall", "进入消防返回", "entered fire recall", Some(44), FaultGroup::Event, Severity::S2, false, "L"),
    kind("firefighter_mode", "进入消防员运行", "entered firefighter operation", Some(45), FaultGroup::Event, Severity::S2, false, "L"),
    kind("emergency_power", "进入应急电源运行", "running on emergency power", Some(46), FaultGroup::Event, Severity::S3, false, "L"),
    kind("earthquake_mode", "地震模式", "earthquake mode", Some(47), FaultGroup::Event, Severity::S2, false, "L"),
    kind("maintenance_mode", "维保模式", "maintenance (counts as inspection)", None, FaultGroup::Event, Severity::S4, false, "B"),
    kind("switched_off", "人为关梯", "switched off on purpose", None, FaultGroup::Event, Severity::S4, false, "B"),
    kind("ebike_in_car", "电动车入梯", "e-bike in the car", None, FaultGroup::Event, Severity::S3, false, "L"),
    kind("smoke_in_car", "轿厢烟雾", "smoke in the car", None, FaultGroup::Event, Severity::S2, true, "L"),
    kind("overcrowded", "人员过多", "too many people", None, FaultGroup::Event, Severity::S4, false, "L"),
    kind("no_mask", "未戴口罩", "no mask", None, FaultGroup::Event, Severity::S4, false, "L"),
    kind("alarm_button", "报警按钮动作", "alarm button pressed", Some(90), FaultGroup::Alarm, Severity::S1, false, "L"),
    kind("entrapment", "困人", "people shut in, position unknown", None, FaultGroup::Alarm, Severity::S1, false, "L"),
    kind("entrapment_at_level", "平层困人", "shut in at a landing", Some(93), FaultGroup::Alarm, Severity::S1, false, "L"),
    kind("entrapment_between_floors", "非平层困人", "shut in between floors", None, FaultGroup::Alarm, Severity::S1, false, "L"),
    kind("entrapment_check", "疑似困人失联", "contact lost, people may be inside (E7)", None, FaultGroup::Alarm, Severity::S2, false, "L"),
    kind("nuisance_call", "误按报警", "button with the door open in zone, or in a run that ended normally", None, FaultGroup::Alarm, Severity::S3, false, "L"),
    kind("esc_safety_circuit_open", "扶梯安全回路断路", "safety circuit open", None, FaultGroup::Fault, Severity::S2, false, "E"),
    kind("esc_overspeed", "超速保护", "overspeed protection (detail: 1.2×, 1.4×)", None, FaultGroup::Fault, Severity::S1, false, "E"),
    kind("esc_reversal", "非操纵逆转", "uncommanded reversal", None, FaultGroup::Fault, Severity::S1, false, "E"),
    kind("esc_step_missing", "梯级/踏板缺失", "step or pallet missing (detail: upper, lower)", None, FaultGroup::Fault, Severity::S1, false, "E"),
    kind("esc_restart_prevented", "防止再启动", "restart prevention", None, FaultGroup::Fault, Severity::S2, false, "E"),
    kind("esc_stopping_distance", "制停距离超距", "stopping distance exceeded", None, FaultGroup::Fault, Severity::S2, false, "E"),
    kind("esc_brake_not_released", "制动器未释放", "service brake does not open", None, FaultGroup::Fault, Severity::S2, false, "E"),
    kind("esc_aux_brake", "附加制动器动作", "auxiliary brake acted", None, FaultGroup::Fault, Severity::S2, false, "E"),
    kind("esc_comb_fault", "梳齿板故障", "comb plate jammed", None, FaultGroup::Fault, Severity::S2, false, "E"),
    kind("esc_mechanical_fault", "机械部件故障", "mechanical part fault", None, FaultGroup::Fault, Severity::S2, false, "E"),
    kind("esc_handrail_slow", "扶手带欠速", "handrail slow", None, FaultGroup::Fault, Severity::S3, false, "E"),
    kind("esc_cover_open", "盖板打开", "cover or floor plate open", None, FaultGroup::Fault, Severity::S3, false, "E"),
    kind("esc_unclassified", "其他故障", "unclassified escalator fault", None, FaultGroup::Fault, Severity::S3, false, "E"),
    kind("esc_emergency_stop", "急停动作", "emergency stop pressed", None, FaultGroup::Event, Severity::S3, false, "E"),
    kind("terminal_offline", "终端离线", "terminal offline", None, FaultGroup::Event, Severity::S3, false, "B"),
    kind("clock_skew", "时钟偏差", "clock skew", None, FaultGroup::Event, Severity::S3, false, "B"),
    kind("sensor_flapping", "传感器抖动", "sensor flapping", None, FaultGroup::Event, Severity::S3, false, "B"),
    kind("area_power_cut", "区域停电", "power off in many elevators of one place", None, FaultGroup::Event, Severity::S2, false, "B"),
    kind("unknown_code", "未知代码", "unknown code", None, FaultGroup::Fault, Severity::S3, false, "B"),
];

/// The row with this slug.
pub fn fault_by_slug(slug: &str) -> Option<&'static FaultKind> {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    static BY_SLUG: LazyLock<HashMap<&'static str, &'static FaultKind>> =
        LazyLock::new(|| FAULTS.iter().map(|fault| (fault.slug, fault)).collect());
    BY_SLUG.get(slug).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_and_codes_are_unique() {
        for (index, fault) in FAULTS.iter().enumerate() {
            for other in &FAULTS[index + 1..] {
                assert_ne!(fault.slug, other.slug);
                assert!(fault.gb_code.is_none() || fault.gb_code != other.gb_code, "{}", fault.slug);
            }
            assert_eq!(fault_by_slug(fault.slug), Some(fault));
        }
    }

    /// They are shown to dispatchers as they stand.
    #[test]
    fn names_are_plain_text() {
        for fault in FAULTS {
            let marked = |text: &str| text.contains(['*', '`', '_']);
            assert!(!marked(fault.english) && !marked(fault.chinese), "{}: {}", fault.slug, fault.english);
        }
    }

    #[test]
    fn the_table_says_what_the_handbook_says() {
        let of_code = |code| FAULTS.iter().find(|fault| fault.gb_code == Some(code)).unwrap();
        let unintended = of_code(5);
        assert_eq!((unintended.slug, unintended.severity), ("unintended_movement", Severity::S1));
        assert_eq!(of_code(90).slug, "alarm_button");
        assert_eq!(of_code(93).slug, "entrapment_at_level");
        assert!(fault_by_slug("esc_reversal").unwrap().escalator);
        assert!(!fault_by_slug("esc_reversal").unwrap().lift);
        assert!(fault_by_slug("smoke_in_car").unwrap().safety_if_people);
        assert_eq!(FAULTS.iter().filter(|fault| fault.is_entrapment()).count(), 3);
    }
}
