//! What a site of OpenWrt routers sends.

/// An attack (six failures and a login of one address) in so many lines.
const ATTACK_EVERY: u64 = 10_000;

/// The line of that number: mostly stations that come and go, one of ten as JSON, one of a hundred a failed login of an address of its own.
pub fn line(n: u64) -> String {
    let (minute, second, ap, place) = (n / 60 % 60, n % 60, n % 40, n % ATTACK_EVERY);
    let head = format!("Nov 21 13:{minute:02}:{second:02} ap{ap}");
    let (a, b, c) = (n >> 16 & 255, n >> 8 & 255, n & 255);
    match n % 10 {
        _ if (5_000..5_006).contains(&place) => format!("<84>{head} dropbear[2741]: Bad password attempt for 'root' from {}:50876", attacker(n)),
        _ if place == 5_006 => format!("<85>{head} dropbear[2741]: Password auth succeeded for 'root' from {}:50880", attacker(n)),
        _ if n % 100 == 50 => format!("<84>{head} dropbear[{c}]: Bad password attempt for 'admin' from 10.{a}.{b}.{c}:50876"),
        0 | 3 | 6 => format!("<30>{head} dnsmasq-dhcp[1141]: DHCPACK(br-lan) 192.168.{b}.{c} 02:00:00:{a:02x}:{b:02x}:{c:02x} laptop-{b}"),
        1 | 4 => format!("<30>{head} hostapd: phy0-ap0: STA 02:00:00:{a:02x}:{b:02x}:{c:02x} IEEE 802.11: associated (aid {})", n % 7 + 1),
        2 | 5 => format!("<29>{head} hostapd: phy0-ap0: AP-STA-DISCONNECTED 02:00:00:{a:02x}:{b:02x}:{c:02x}"),
        7 => format!("<29>{head} netifd: Interface 'wan{}' is now up", n % 4),
        8 => format!("<28>{head} odhcpd[783]: DHCPV6 SOLICIT IA_NA from 000100012{c:03x}7b1bbb7446a03cd751 on br-lan: ok fdaa:5ff8:dd04::{c:x}/128"),
        _ => format!(
            "{{\"timestamp\":\"2026-11-21T13:{minute:02}:{second:02}Z\",\"host\":\"sw{ap}\",\"program\":\"lldpd\",\"level\":\"info\",\"message\":\"port {c} is up\",\"port\":{c},\"speed\":1000}}"
        ),
    }
}

fn attacker(n: u64) -> String {
    let attack = n / ATTACK_EVERY;
    format!("203.{}.{}.{}", attack >> 16 & 255, attack >> 8 & 255, attack & 255)
}

/// How many addresses of the first `n` lines are found guessing.
pub fn attacks(n: u64) -> u64 {
    (n + ATTACK_EVERY - 5_007) / ATTACK_EVERY
}
