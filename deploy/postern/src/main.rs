//! The program `postern`; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    postern::main()
}
