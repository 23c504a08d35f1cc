/* client.c: the benchmarks' HTTP client, for what wrk cannot do: requests at a rate, that say what became of each.
 * Decides what counts as served, refused, cut before or behind the first byte of an answer; times run from when a
 * request was due, so that a stall is seen by all that fall into it.  Read worker.c for the other end.
 *   client rate PORT RATE SECONDS THREADS fresh|kept PATH [mixed]
 *   client closed PORT SECONDS THREADS fresh|kept PATH [mixed]   each thread asks again when answered
 *       mixed: every fourth request is a POST with a body of 5 bytes.  One line of JSON at the end; before it, in the
 *       beginning, "begin CLOCK_MONOTONIC_NS".
 *   client flip PORT PATH PID         asks until 200, kills PID, asks until not 200: "FLIP_NS POLL_NS", -1: never seen
 *   client idle PORT COUNT PATH       COUNT connections, a request on each; "open N", then until stdin ends */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OK, REFUSED, STALE, CUT, CUT_BEGUN, ERROR_5XX, OTHER, KINDS };
static const char *names[] = {"ok", "refused", "stale", "cut", "cut_begun", "e5xx", "other"};

static int port, kept, mixed, wait_whole = 10;
static double rate;
static long long begin, end_at;
static const char *path;
static atomic_long tickets;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void until(long long ns) {
    struct timespec t = {ns / 1000000000LL, ns % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

static int dial(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {wait_whole, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (void *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* One request on *fd, dialled where it is -1; *fd is -1 again where the connection is not kept.  Returns the kind. */
static int ask(int *fd, int post, int *status) {
    char request[512], buffer[65536], byte;
    int reused = *fd >= 0, keep = kept;
    *status = 0;
    /* What every pool does: a connection that the server has ended meanwhile is not used. */
    if (reused && recv(*fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) {
        close(*fd);
        *fd = -1;
        reused = 0;
    }
    if (*fd < 0 && (*fd = dial()) < 0) return errno == ECONNREFUSED ? REFUSED : CUT;
    int n = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: bench\r\n%s%s\r\n%s", post ? "POST" : "GET", path,
                     post ? "Content-Length: 5\r\n" : "", kept ? "" : "Connection: close\r\n", post ? "hello" : "");
    size_t used = 0, head = 0;
    long length = -1;
    int kind = CUT;
    if (send(*fd, request, n, MSG_NOSIGNAL) == n) {
        for (;;) {
            ssize_t got = recv(*fd, buffer + used, sizeof buffer - 1 - used, 0);
            if (got <= 0) {
                int whole = got == 0 && head && length < 0;
                kind = whole ? OK : used ? CUT_BEGUN : CUT;
                keep = 0;
                break;
            }
            used += got;
            buffer[used] = 0;
            char *gap;
            if (!head && (gap = strstr(buffer, "\r\n\r\n"))) {
                head = gap + 4 - buffer;
                *gap = 0;
                *status = atoi(buffer + 9);
                char *field = strcasestr(buffer, "\r\ncontent-length:");
                if (field) length = atol(field + 17);
                if (strcasestr(buffer, "\r\nconnection: close")) keep = 0;
            }
            if (head && length >= 0 && used >= head + length) {
                kind = OK;
                break;
            }
        }
    }
    if (kind == CUT && reused) kind = STALE;
    if (kind != OK || !keep) {
        close(*fd);
        *fd = -1;
    }
    if (kind == OK && *status != 200) kind = *status / 100 == 5 ? ERROR_5XX : OTHER;
    return kind;
}

struct outcome { float ms; unsigned char kind, post; };
struct share { struct outcome *list; long count, room; };

static void *client(void *arg) {
    struct share *mine = arg;
    int fd = -1, status;
    for (;;) {
        long ticket = tickets++;
        long long due = rate ? begin + (long long)(ticket * 1e9 / rate) : now();
        if (due >= end_at) break;
        if (rate) until(due);
        int post = mixed && ticket % 4 == 0, kind = ask(&fd, post, &status);
        if (mine->count == mine->room) {
            mine->room = mine->room ? mine->room * 2 : 256;
            mine->list = realloc(mine->list, mine->room * sizeof *mine->list);
        }
        mine->list[mine->count++] = (struct outcome){(now() - due) / 1e6, kind, post};
        if (!rate && kind != OK) usleep(1000); /* not a storm against a closed port */
    }
    if (fd >= 0) close(fd);
    return NULL;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int load(int threads) {
    pthread_t *all = calloc(threads, sizeof *all);
    struct share *shares = calloc(threads, sizeof *shares);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 262144);
    printf("begin %lld\n", begin);
    fflush(stdout);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&all[i], &small, client, &shares[i])) return 1;
    long counts[2][KINDS] = {{0}}, total = 0, good = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(all[i], NULL);
        total += shares[i].count;
    }
    float *ms = malloc((total + 1) * sizeof *ms), longest = 0;
    for (int i = 0; i < threads; i++)
        for (long j = 0; j < shares[i].count; j++) {
            struct outcome o = shares[i].list[j];
            counts[o.post][o.kind]++;
            if (o.kind == OK) ms[good++] = o.ms;
            if (o.ms > longest) longest = o.ms;
        }
    qsort(ms, good, sizeof *ms, ascending);
    double q[3] = {.5, .99, 1}, at[3] = {0};
    for (int i = 0; i < 3 && good; i++) at[i] = ms[(long)(q[i] * good) < good ? (long)(q[i] * good) : good - 1];
    printf("{\"requests\": %ld, \"rps\": %.1f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ok_ms\": %.3f, \"max_ms\": %.3f", total,
           good * 1e9 / (double)(end_at - begin), at[0], at[1], at[2], longest);
    for (int post = 0; post < 2; post++)
        for (int kind = 0; kind < KINDS; kind++) printf(", \"%s%s\": %ld", post ? "post_" : "", names[kind], counts[post][kind]);
    printf("}\n");
    return 0;
}

static int flip(int pid) {
    int fd = -1, status;
    long long last = 0, polls = 0, poll_sum = 0, at;
    kept = 1;
    for (long long limit = now() + 10000000000LL; ask(&fd, 0, &status) != OK; usleep(1000))
        if (now() > limit) return puts("-1 -1"), 0;
    for (long long warm = now() + 20000000; now() < warm; polls++) {
        at = now();
        ask(&fd, 0, &status);
        poll_sum += now() - at;
    }
    at = now();
    kill(pid, SIGKILL);
    do {
        int kind = ask(&fd, 0, &status);
        last = now();
        if (kind != OK) {
            printf("%lld %lld\n", last - at, polls ? poll_sum / polls : -1);
            return 0;
        }
    } while (last < at + 3000000000LL);
    puts("-1 -1");
    return 0;
}

static int idle(int count) {
    int fd, status, open = 0;
    for (int i = 0; i < count; i++) {
        fd = -1;
        kept = 1;
        if (ask(&fd, 0, &status) == OK && fd >= 0) open++;
    }
    printf("open %d\n", open);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {}
    return 0;
}

int main(int argc, char **argv) {
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 5) return 2;
    const char *mode = argv[1];
    port = atoi(argv[2]);
    int threads;
    if (strcmp(mode, "flip") == 0) return path = argv[3], flip(atoi(argv[4]));
    if (strcmp(mode, "idle") == 0) return path = argv[4], idle(atoi(argv[3]));
    int rated = strcmp(mode, "rate") == 0, i = 3;
    if (argc < 7 + rated) return 2;
    if (rated) rate = atof(argv[i++]);
    double seconds = atof(argv[i++]);
    threads = atoi(argv[i++]);
    kept = strcmp(argv[i++], "kept") == 0;
    path = argv[i++];
    mixed = argc > i && strcmp(argv[i], "mixed") == 0;
    begin = now() + 50000000;
    end_at = begin + (long long)(seconds * 1e9);
    if (!rated) until(begin);
    return load(threads);
}
