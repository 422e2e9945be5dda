//! GPT and MBR partition tables: both copies, built and read.
