"""What is sent arrives: from forked processes, from threads, coroutines and green threads, and at exit."""

from __future__ import annotations

import urllib.request
from collections import Counter
from textwrap import dedent

import pytest

from conftest import MakeProject
from servers.project import Broker, Project

IN_CHILDREN = """
    import os, sys, traceback
    from shopapp.signals import my_signal

    def in_child(number):
        pid = os.fork()
        if pid:
            return pid
        try:
            my_signal.send("child", number=number)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    """


class TestForks:
    def test_os_fork_after_a_first_send(self, project: Project) -> None:
        report = project.run(
            dedent(IN_CHILDREN)
            + dedent(
                """
                my_signal.send("parent", number=0)
                children = [in_child(number) for number in (1, 2, 3)]
                my_signal.send("parent", number=4)
                result = [os.waitpid(pid, 0)[1] for pid in children]
                my_signal.send("parent", number=5)
                """
            )
        )
        assert report.result == [0, 0, 0], report.output
        assert sorted(project.taken_arguments("number")) == [0, 1, 2, 3, 4, 5]

    def test_a_fork_of_a_fork(self, project: Project) -> None:
        report = project.run(
            dedent(IN_CHILDREN)
            + dedent(
                """
                my_signal.send("parent", number=0)
                pid = os.fork()
                if not pid:
                    my_signal.send("child", number=1)
                    os._exit(os.waitpid(in_child(2), 0)[1])
                result = os.waitpid(pid, 0)[1]
                """
            )
        )
        assert report.result == 0, report.output
        assert sorted(project.taken_arguments("number")) == [0, 1, 2]

    def test_a_fork_while_another_thread_sends(self, project: Project) -> None:
        report = project.run(
            dedent(IN_CHILDREN)
            + dedent(
                """
                import threading
                my_signal.send("parent", number=0)
                thread = threading.Thread(target=lambda: [my_signal.send("parent", number=n) for n in range(100, 300)])
                thread.start()
                children = [in_child(number) for number in range(1, 11)]
                result = [os.waitpid(pid, 0)[1] for pid in children]
                thread.join()
                """
            )
        )
        assert report.result == [0] * 10, report.output
        assert sorted(project.taken_arguments("number")) == [*range(11), *range(100, 300)]

    @pytest.mark.parametrize("durability", ["confirmed", "background"])
    def test_multiprocessing_after_a_first_send(self, project: Project, durability: str) -> None:
        """The children's background sends are flushed as they end."""
        report = project.run(
            f"""
            import multiprocessing
            from shopapp.signals import my_signal

            def send(number):
                my_signal.options(durability={durability!r}).send("child", number=number)
                return number

            send(0)
            fork = multiprocessing.get_context("fork")
            process = fork.Process(target=send, args=(1,))
            process.start()
            process.join()
            with fork.Pool(2) as pool:
                result = pool.map(send, [2, 3, 4, 5])
                pool.close()
                pool.join()
            send(6)
            """
        )
        assert report.result == [2, 3, 4, 5]
        assert sorted(project.taken_arguments("number")) == [0, 1, 2, 3, 4, 5, 6]

    def test_gunicorn_with_preload_after_a_first_send(self, project: Project) -> None:
        server = project.start(
            *("-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "proj.preloaded:application")
        )
        try:
            address = server.wait_for("Listening at: ").split("Listening at: ")[1].split()[0]
            answered: list[str] = []
            while len(set(answered)) < 2 and len(answered) < 500:
                with urllib.request.urlopen(f"{address}/order?id={len(answered) + 1}", timeout=30) as response:
                    answered.append(response.read().decode())
        finally:
            server.stop()
        assert len(set(answered)) == 2, "both workers have answered"
        assert project.taken_arguments("order_id") == [*range(len(answered) + 1)]


class TestAtTheSameTime:
    def test_eight_threads(self, project: Project) -> None:
        project.run(
            """
            from concurrent.futures import ThreadPoolExecutor
            from shopapp.signals import my_signal
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda number: my_signal.send("thread", number=number), range(1000)))
            """
        )
        assert sorted(project.taken_arguments("number")) == [*range(1000)]

    def test_one_thousand_coroutines(self, project: Project) -> None:
        report = project.run(
            """
            import asyncio
            from shopapp.signals import my_signal

            async def main():
                return await asyncio.gather(*(my_signal.asend("coroutine", number=n) for n in range(1000)))

            result = [sent.id for sent in asyncio.run(main())]
            """
        )
        messages = project.take("celery")
        assert sorted(message.headers["id"] for message in messages) == sorted(report.result)
        assert sorted(message.decode()[1]["number"] for message in messages) == [*range(1000)]

    def test_event_loops_of_several_threads_and_threads_beside_them(self, project: Project) -> None:
        project.run(
            """
            import asyncio, threading
            from shopapp.signals import my_signal

            async def main(first):
                await asyncio.gather(*(my_signal.asend("coroutine", number=first + n) for n in range(100)))

            def in_a_row(first):
                for n in range(100):
                    my_signal.send("thread", number=first + n)

            threads = [threading.Thread(target=lambda n=n: asyncio.run(main(n * 100))) for n in range(3)]
            threads += [threading.Thread(target=in_a_row, args=(n * 100,)) for n in range(3, 6)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            """
        )
        assert sorted(project.taken_arguments("number")) == [*range(600)]

    def test_a_cancelled_asend_leaves_nothing_broken(self, project: Project) -> None:
        report = project.run(
            """
            import asyncio
            from shopapp.signals import my_signal

            async def main():
                tasks = [asyncio.ensure_future(my_signal.asend("coroutine", number=n)) for n in range(100)]
                for task in tasks[::4]:  # before they begin: of a later one that is settled already, 3.11 forgets it
                    task.cancel()
                await asyncio.sleep(0)
                for task in tasks[2::4]:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                await my_signal.asend("coroutine", number=100)
                return [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]

            cancelled = asyncio.run(main())
            my_signal.send("thread", number=101)
            result = cancelled
            """
        )
        cancelled = {number for number, was in enumerate(report.result) if was}
        arrived = Counter(project.taken_arguments("number"))
        assert cancelled
        assert set(range(102)) - cancelled <= set(arrived)
        assert set(arrived.values()) == {1}

    def test_the_event_loop_is_never_blocked(self, make_project: MakeProject, broker: Broker) -> None:
        project = make_project(broker)
        report = project.run(
            """
            import asyncio, time
            from shopapp.signals import my_signal
            my_signal.send("warm", number=-1)

            async def main():
                longest, stop = 0.0, False

                async def ticker():
                    nonlocal longest
                    last = time.monotonic()
                    while not stop:
                        await asyncio.sleep(0)
                        now = time.monotonic()
                        longest, last = max(longest, now - last), now

                ticking = asyncio.ensure_future(ticker())
                for number in range(200):
                    await my_signal.asend("coroutine", number=number)
                stop = True
                await ticking
                return longest

            result = asyncio.run(main())
            """
        )
        assert report.result < 0.5

    def test_gevent(self, project: Project) -> None:
        """Green threads share the connection, and the hub goes on while one waits."""
        done = project.python(
            "-c",
            dedent(
                """
                from gevent import monkey
                monkey.patch_all()
                import json, time, gevent, django
                django.setup()
                from shopapp.signals import my_signal

                ticks = 0
                def ticker():
                    global ticks
                    while True:
                        gevent.sleep(0)
                        ticks += 1

                ticking = gevent.spawn(ticker)
                def send(first):
                    for n in range(20):
                        my_signal.send("green", number=first + n)

                gevent.joinall([gevent.spawn(send, first * 20) for first in range(50)], raise_error=True)
                ticking.kill()
                print("ticks:", ticks)
                """
            ),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert int(done.stdout.split("ticks:")[1]) > 10
        assert sorted(project.taken_arguments("number")) == [*range(1000)]


class TestInTheBackground:
    def test_the_exit_flushes(self, project: Project) -> None:
        project.run(
            """
            from shopapp.signals import buffered
            for number in range(500):
                buffered.send("web", number=number)
            """
        )
        assert project.taken_arguments("number") == [*range(500)]

    def test_flush_waits_until_the_broker_has_them(self, project: Project) -> None:
        report = project.run(
            """
            from async_signals import flush
            from proj.looking import waiting
            from shopapp.signals import buffered
            for number in range(100):
                buffered.send("web", number=number)
            flush()
            result = waiting()
            """
        )
        assert report.result == 100

    def test_from_coroutines(self, project: Project) -> None:
        project.run(
            """
            import asyncio
            from shopapp.signals import buffered

            async def main():
                await asyncio.gather(*(buffered.asend("web", number=number) for number in range(500)))

            asyncio.run(main())
            """
        )
        assert sorted(project.taken_arguments("number")) == [*range(500)]

    def test_a_worker_flushes_what_its_receivers_sent(self, project: Project) -> None:
        with project.worker():
            project.run("from shopapp.signals import chained_in_background as s; s.send(None)")
            project.effects.wait_for(1, "sends_in_background")
        assert project.taken_arguments("number", "unread") == [*range(50)]
