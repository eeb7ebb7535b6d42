//! Power-off and reboot.
