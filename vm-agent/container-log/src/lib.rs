//! The container log writer and live attach: library of our shim, binary for others.
