/* peek.c
 * Looks at processes from inside a sandbox whose processes the kit does not see: `peek zombies` counts zombies,
 * `peek first` prints the environment and the command line of PID 1. Linked statically; see places.py. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void show(const char *path) {
    FILE *file = fopen(path, "r");
    int c;
    while (file && (c = fgetc(file)) != EOF) putchar(c ? c : '\n');
    if (file) fclose(file);
}

int main(int count, char **arguments) {
    if (count < 2) return 64;
    if (!strcmp(arguments[1], "first")) {
        show("/proc/1/environ");
        show("/proc/1/cmdline");
        return 0;
    }
    DIR *all = opendir("/proc");
    struct dirent *one;
    int zombies = 0;
    while (all && (one = readdir(all))) {
        char path[300], text[600] = "";
        if (!isdigit((unsigned char)one->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/stat", one->d_name);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        size_t size = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[size] = 0;
        char *end = strrchr(text, ')');
        if (end && end[1] && end[2] == 'Z') zombies++;
    }
    printf("%d\n", zombies);
    return 0;
}
