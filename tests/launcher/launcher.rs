//! The launcher of the sandbox's guests for tests and benches, whose own `main` belongs to their harness.

fn main() {
    melange_remote_sdk::sandbox::run_if_asked();
    // Whoever calls it without the launcher's arguments has made a mistake.
    std::process::exit(2);
}
