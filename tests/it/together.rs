//! Many builds at once on all builders of one engine.

use std::time::Instant;

use futures_util::future::join_all;

use crate::support::farm::{assert_same, on_farm};
use crate::zoo::ZOO;

/// How many builds run at once.
const BUILDS: usize = 8;

#[test]
fn builds_at_the_same_time_do_not_disturb_each_other() {
    on_farm(async |farm| {
        let backends = farm.backends();
        if backends.is_empty() {
            return;
        }
        let begin = Instant::now();
        let builds = (0..BUILDS).map(|number| {
            // Two of each input on each backend; the version tells the inputs apart.
            let yaml = ZOO.replace("version: 1.0.0", &format!("version: 1.0.{}", number / 4));
            let backend = backends[number % backends.len()];
            async move { farm.build(backend, "zoo", &yaml).await }
        });
        let built = join_all(builds).await;
        println!("{BUILDS} builds at once on {backends:?}: {:?}", begin.elapsed());
        for group in built.chunks(4) {
            for other in &group[1..] {
                assert_same("at once", &group[0], other);
            }
        }
        assert_ne!(built[0].bytes(), built[4].bytes());
    });
}
