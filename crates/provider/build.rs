//! Embeds the files of `providers/`: writes the table that `src/built_in.rs` includes.

use std::path::Path;
use std::{env, fs, io};

#[allow(clippy::disallowed_methods, reason = "Cargo tells a build script its folders in the environment")]
fn main() -> io::Result<()> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("../../providers");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".toml") {
            names.push(name);
        }
    }
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        table.push_str(&format!("    ({name:?}, include_str!({:?})),\n", folder.join(&name)));
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR").map_err(io::Error::other)?).join("built_in.rs"), table)
}
