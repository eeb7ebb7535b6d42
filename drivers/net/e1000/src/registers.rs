//! The registers that the driver uses (SDM 13, 82574 10.2).

ddk::registers! {
    /// BAR 0.
    pub(crate) struct Registers: 0x5820 {
        /// Device control.
        0x0000 ctrl: u32, ReadWrite, "SDM 13.4.1";
        /// Device status.
        0x0008 status: u32, ReadPure, "SDM 13.4.2";
        /// EEPROM read.
        0x0014 eerd: u32, ReadWrite, "SDM 13.4.4";
        /// Extended device control.
        0x0018 ctrl_ext: u32, ReadWrite, "SDM 13.4.6";
        /// Causes of interrupts that are pending; reading clears them unless messages are used, writing clears those written.
        0x00c0 icr: u32, ReadEffectWrite, reset 0, "SDM 13.4.17";
        /// Allow causes.
        0x00d0 ims: u32, ReadWrite, reset 0, "SDM 13.4.20";
        /// Forbid causes.
        0x00d8 imc: u32, WriteOnly, "SDM 13.4.21";
        /// Causes that a message clears.
        0x00dc eiac: u32, ReadWrite, reset 0, "82574 10.2.4.7";
        /// Causes that are masked automatically.
        0x00e0 iam: u32, ReadWrite, reset 0, "82574 10.2.4.8";
        /// Vectors of the causes.
        0x00e4 ivar: u32, ReadWrite, reset 0, "82574 10.2.4.9";
        /// Shortest time between two interrupts of vector 0, in 256 ns.
        0x00e8 eitr0: u32, ReadWrite, reset 0, "82574 10.2.4.10";
        /// Receive control.
        0x0100 rctl: u32, ReadWrite, reset 0, "SDM 13.4.22";
        /// Transmit control.
        0x0400 tctl: u32, ReadWrite, "SDM 13.4.33";
        /// Transmit inter-packet gap.
        0x0410 tipg: u32, ReadWrite, "SDM 13.4.34";
        /// Receive ring, low half of its address.
        0x2800 rdbal: u32, ReadWrite, "SDM 13.4.25";
        /// High half.
        0x2804 rdbah: u32, ReadWrite, "SDM 13.4.26";
        /// Its length in bytes.
        0x2808 rdlen: u32, ReadWrite, "SDM 13.4.27";
        /// The device's place in it.
        0x2810 rdh: u32, ReadWrite, "SDM 13.4.28";
        /// The driver's place in it.
        0x2818 rdt: u32, ReadWrite, "SDM 13.4.29";
        /// Transmit ring, low half of its address.
        0x3800 tdbal: u32, ReadWrite, "SDM 13.4.35";
        /// High half.
        0x3804 tdbah: u32, ReadWrite, "SDM 13.4.36";
        /// Its length in bytes.
        0x3808 tdlen: u32, ReadWrite, "SDM 13.4.37";
        /// The device's place in it.
        0x3810 tdh: u32, ReadWrite, "SDM 13.4.38";
        /// The driver's place in it.
        0x3818 tdt: u32, ReadWrite, "SDM 13.4.39";
        /// When descriptors are written back.
        0x3828 txdctl: u32, ReadWrite, "SDM 13.4.44";
        /// Frames with a wrong check sequence.
        0x4000 crcerrs: u32, ReadEffect, "SDM 13.7.1";
        /// Frames with other errors.
        0x400c rxerrc: u32, ReadEffect, "SDM 13.7.4";
        /// Frames missed for want of room in the device.
        0x4010 mpc: u32, ReadEffect, "SDM 13.7.5";
        /// Receive checksum control.
        0x5000 rxcsum: u32, ReadWrite, "SDM 13.4.26";
        /// First receive address, low half.
        0x5400 ral0: u32, ReadWrite, "SDM 13.5.2";
        /// High half.
        0x5404 rah0: u32, ReadWrite, "SDM 13.5.3";
    }
}
