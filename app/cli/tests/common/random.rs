//! Random numbers that a seed brings back.

#![allow(dead_code)] // each test binary uses its part

/// Kills of each kind, unless LONGSHORE_KILLS says otherwise.
const KILLS: u64 = 5;

/// How often each kind is to be killed.
pub fn kills() -> u64 {
    let told = std::env::var("LONGSHORE_KILLS").ok();
    told.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

/// splitmix64.
pub struct Random(u64);

impl Random {
    /// From `LONGSHORE_SEED`, or from the clock; says which.
    pub fn seeded() -> Self {
        let told = std::env::var("LONGSHORE_SEED").ok();
        let seed = told.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64)
        });
        println!("LONGSHORE_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
