# A guest of a few instructions, to test the host's side of a run. It says
# "log" on COM1 and "console" on COM2, then does what the first letter of its
# command line says:
#   e  gives status 7 and switches the machine off
#   s  gives status 7 and stays on
#   p  says that it panicked, writes a report to COM1, and stays on
#   d  switches the machine off without a word
#   r  resets the machine (triple fault)
#   c  copies the console's input to its output up to a "q", then as e
#   f  writes to the console for ever
#   h  does nothing for ever
    .code32
    .section .note, "a", @note
    # PVH entry: Xen ELF note 18, XEN_ELFNOTE_PHYS32_ENTRY.
    .long 4, 4, 18
    .asciz "Xen"
    .long start

    .text
    .globl start
start:
    movl $stack_end, %esp
    movl 24(%ebx), %ebp          # hvm_start_info.cmdline_paddr
    movl $log_text, %esi
    movl $0x3f8, %edi
    call write_serial
    movl $console_text, %esi
    movl $0x2f8, %edi
    call write_serial
    movb (%ebp), %al
    cmpb $'e', %al
    je finish
    cmpb $'s', %al
    je stay
    cmpb $'p', %al
    je panic
    cmpb $'d', %al
    je power_off
    cmpb $'r', %al
    je reset
    cmpb $'c', %al
    je copy
    cmpb $'f', %al
    je flood
hang:
    cli
    hlt
    jmp hang

finish:
    movl $exit_text, %esi
    call write_outcome
power_off:
    # ICH9 PM1a control: SLP_EN with the type of S5, at the base that the
    # firmware gives it.
    movw $0x604, %dx
    movw $0x2000, %ax
    outw %ax, %dx
    jmp hang

stay:
    movl $exit_text, %esi
    call write_outcome
    jmp hang

panic:
    movl $panic_text, %esi
    call write_outcome
    movl $report_text, %esi
    movl $0x3f8, %edi
    call write_serial
    jmp hang

reset:
    lidt empty_idt
    ud2

flood:
    movl $console_text, %esi
    movl $0x2f8, %edi
    call write_serial
    jmp flood

copy:
    movw $0x2fd, %dx             # line status: bit 0, data ready
    inb %dx, %al
    testb $1, %al
    jz copy
    movw $0x2f8, %dx
    inb %dx, %al
    cmpb $'q', %al
    je finish
    movb %al, copied
    movl $copied, %esi
    movl $0x2f8, %edi
    call write_serial
    jmp copy

write_serial:                    # text at esi to the port at edi
    leal 5(%edi), %edx
1:  inb %dx, %al
    testb $0x20, %al             # line status: transmitter empty
    jz 1b
    movb (%esi), %al
    testb %al, %al
    jz 2f
    movl %edi, %edx
    outb %al, %dx
    incl %esi
    jmp write_serial
2:  ret

write_outcome:
    movb (%esi), %al
    testb %al, %al
    jz 2b
    outb %al, $0xe9
    incl %esi
    jmp write_outcome

    .data
log_text:     .asciz "log\n"
console_text: .asciz "console \xff\r\n"
exit_text:    .asciz "exit 7\n"
panic_text:   .asciz "panic\n"
report_text:  .asciz "kernel panic: a test\n"
copied:       .byte 0, 0
empty_idt:    .word 0
              .long 0
    .bss
    .skip 1024
stack_end:
    .section .note.GNU-stack, "", @progbits
