/*
 * System call, call and reply between two processes, thread switch.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 20000
#define ROUND_TRIPS 3000
#define MESSAGE 64

/* A mailbox in shared memory: whose turn it is, and the message. */
struct mailbox {
    _Atomic uint32_t turn __attribute__((aligned(64)));
    unsigned char message[MESSAGE];
};

enum { CLIENT, SERVER };

/* Between threads of one process a futex may be private, which is cheaper. */
static int futex_flag;

static void hand_over(struct mailbox *box, uint32_t to)
{
    atomic_store(&box->turn, to);
    syscall(SYS_futex, &box->turn, FUTEX_WAKE | futex_flag, 1, NULL, NULL, 0);
    while (atomic_load(&box->turn) == to)
        syscall(SYS_futex, &box->turn, FUTEX_WAIT | futex_flag, to, NULL, NULL, 0);
}

static struct mailbox *new_mailbox(void)
{
    struct mailbox *box = mmap(NULL, sizeof *box, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (box == MAP_FAILED)
        fail("mmap");
    atomic_store(&box->turn, CLIENT);
    return box;
}

static void null_calls(void)
{
    for (int i = 0; i < CALLS; i++)
        syscall(SYS_getppid);
}

static void call_by_futex(struct mailbox *box)
{
    unsigned char mine[MESSAGE] = { 1 };

    for (int i = 0; i < ROUND_TRIPS; i++) {
        memcpy(box->message, mine, MESSAGE);
        hand_over(box, SERVER);
        memcpy(mine, box->message, MESSAGE);
    }
    if (mine[0] != (unsigned char)(1 + ROUND_TRIPS))
        fail("futex server");
}

static noreturn void serve_by_futex(struct mailbox *box)
{
    unsigned char mine[MESSAGE];

    while (atomic_load(&box->turn) != SERVER)
        syscall(SYS_futex, &box->turn, FUTEX_WAIT, CLIENT, NULL, NULL, 0);
    for (;;) {
        memcpy(mine, box->message, MESSAGE);
        mine[0]++;
        memcpy(box->message, mine, MESSAGE);
        hand_over(box, CLIENT);
    }
}

static void call_by_pipe(int to, int from)
{
    unsigned char mine[MESSAGE] = { 1 };

    for (int i = 0; i < ROUND_TRIPS; i++)
        if (write(to, mine, MESSAGE) != MESSAGE || read(from, mine, MESSAGE) != MESSAGE)
            fail("pipe");
    if (mine[0] != (unsigned char)(1 + ROUND_TRIPS))
        fail("pipe server");
}

static noreturn void serve_by_pipe(int from, int to)
{
    unsigned char mine[MESSAGE];

    while (read(from, mine, MESSAGE) == MESSAGE) {
        mine[0]++;
        if (write(to, mine, MESSAGE) != MESSAGE)
            break;
    }
    _exit(0);
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void *other_thread(void *arg)
{
    struct mailbox *box = arg;

    while (atomic_load(&box->turn) != SERVER)
        syscall(SYS_futex, &box->turn, FUTEX_WAIT | futex_flag, CLIENT, NULL, NULL, 0);
    for (;;)
        hand_over(box, CLIENT);
    return NULL;
}

static void switch_threads(struct mailbox *box)
{
    for (int i = 0; i < ROUND_TRIPS; i++)
        hand_over(box, SERVER);
}

void bench_ipc(void)
{
    if (wanted("null-call"))
        MEASURE("null-call", SECTION_NULL_CALL, CALLS, (void)0, null_calls());

    if (wanted("call-reply-64")) {
        struct mailbox *box = new_mailbox();
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (!child)
            serve_by_futex(box);
        MEASURE("call-reply-64", SECTION_CALL_REPLY, ROUND_TRIPS, (void)0, call_by_futex(box));
        end(child);
    }

    if (wanted("call-reply-64-pipe")) {
        int request[2], reply[2];
        if (pipe(request) || pipe(reply))
            fail("pipe");
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (!child)
            serve_by_pipe(request[0], reply[1]);
        MEASURE("call-reply-64-pipe", SECTION_CALL_REPLY_PIPE, ROUND_TRIPS, (void)0,
                call_by_pipe(request[1], reply[0]));
        end(child);
    }

    if (wanted("thread-switch")) {
        struct mailbox *box = new_mailbox();
        pthread_t thread;
        futex_flag = FUTEX_PRIVATE_FLAG;
        if (pthread_create(&thread, NULL, other_thread, box))
            fail("pthread_create");
        MEASURE("thread-switch", SECTION_THREAD_SWITCH, ROUND_TRIPS, (void)0, switch_threads(box));
        /* The thread waits for a turn that never comes; it ends with the system. */
    }
}
