//! One interface to the kernel, three engines: io_uring, plain system calls, a simulated disk.
