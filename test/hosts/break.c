/* break.c - Windows: starts a program, presses Ctrl-Break once its standard error has a text, and ends with its code.
 *
 *     break FILE TEXT PROGRAM [ARGUMENT...]      FILE: where its standard error goes */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

static int has(const char *path, const char *text)
{
    static char all[1 << 16];
    FILE *f = fopen(path, "rb");
    all[f ? fread(all, 1, sizeof all - 1, f) : 0] = 0;
    if (f) fclose(f);
    return strstr(all, text) != NULL;
}

int main(int argc, char **argv)
{
    char line[4096] = "";
    DWORD code = 1;
    SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
    STARTUPINFOA start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION p;
    for (int i = 3; i < argc && strlen(line) + strlen(argv[i]) + 4 < sizeof line; i++)
        strcat(strcat(strcat(line, "\""), argv[i]), "\" ");
    start.hStdInput = GetStdHandle(STD_INPUT_HANDLE), start.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    start.hStdError = CreateFileA(argv[1], GENERIC_WRITE, FILE_SHARE_READ, &inherited, CREATE_ALWAYS, 0, NULL);
    if (!CreateProcessA(argv[3], line, NULL, NULL, TRUE, CREATE_NEW_PROCESS_GROUP, NULL, NULL, &start, &p)) return 2;
    while (WaitForSingleObject(p.hProcess, 20) == WAIT_TIMEOUT && !has(argv[1], argv[2])) {
    }
    /* Wine 8 knows no Ctrl-Break. What the C library of Windows makes of it is raise, in a thread that comes to it. */
    if (!GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, p.dwProcessId)) {
        union {
            FARPROC found;
            LPTHREAD_START_ROUTINE start;
        } raise = {GetProcAddress(GetModuleHandleA("msvcrt.dll"), "raise")};
        CreateRemoteThread(p.hProcess, NULL, 0, raise.start, (void *)SIGBREAK, 0, NULL);
    }
    WaitForSingleObject(p.hProcess, INFINITE);
    GetExitCodeProcess(p.hProcess, &code);
    return (int)code;
}
