/// The table of the fixtures' README; one hash differs, see there.
const FIXTURES: &[Fixture] = &[
    Fixture {
        name: "bitlk-aes-xts-128",
        secrets: &[Password("anaconda"), Recovery("235818-357951-253979-013365-241120-245575-342914-591910")],
        whole: "674e3a976927fd62f3fc26df2c695cac75b8d364e3b45393717efa971f16db0f",
        front: "6e854a6de14e3104115f21cc8534e247a7fde6a0691147ef85609f5559a52020",
    },
    Fixture {
        name: "bitlk-aes-cbc-128",
        secrets: &[Password("anaconda"), Recovery("042647-302313-590458-071500-554323-116567-412181-516978")],
        whole: "04500a8120ba355ed206284e03e26e59b7e1f1832868e1d69bb47023ebd3460f",
        front: "cd5f148631ac9fc377040784fe71807074e4729b0dc247d1ed16645aa42bba10",
    },
    Fixture {
        name: "bitlk-aes-cbc-elephant-128",
        secrets: &[Password("anaconda"), Recovery("529573-278784-259347-197835-171457-264044-610280-313269")],
        whole: "b18e4f956295bc0f327e551322261fb9c74ac0d3ce58bf3b806e98474e1619ea",
        front: "548db1dd2da091060d6a99a000996a05c43b54e251fbab848f9d39f264e1fee6",
    },
    Fixture {
        name: "bitlk-togo-aes-xts-128",
        secrets: &[Password("anaconda"), Recovery("243067-548680-059818-148852-287771-550088-628265-631653")],
        whole: "5954795eb41764b59a10d86c26fd3b43fb6d89f433c8edc1e8fd48067d198591",
        front: "d96095ceaaea9e0c5eb1f833a924a771b277b9c1a13a7c1f2e548c238cf47a6c",
    },
    Fixture {
        name: "bitlk-aes-xts-128-eow",
        secrets: &[Password("anaconda"), Recovery("685839-373538-494868-036223-326590-515064-328416-685102")],
        whole: "709896849b49ffe4d5dfa4d8ee842cf54becb0a90ecba4f5eefec16ffb755665",
        front: "ecf9b7c22388d892df2e76380c2f794b0c581a8bc979e4bdcdf0c74082e408d7",
    },
    Fixture {
        name: "bitlk-aes-xts-128-new-entry",
        secrets: &[Password("anaconda"), Recovery("199067-214280-266398-508123-023584-402875-562793-012067")],
        whole: "794163062398ae43b796f85eafde8acf5dc7830a93ec2aa7ef0c6baaa14b2757",
        front: "33857fd3807e0d129e3f26c5cef9fcfef7502878cdc8aa0a5ae6a679469ec35b",
    },
    Fixture {
        name: "bitlk-aes-xts-128-4k",
        secrets: &[Password("anaconda"), Recovery("486552-140030-675719-163900-264671-413787-580239-152614")],
        whole: "b4c0416ae643537207413ed78d4bcadae697bb86a6262864ac00afda01312277",
        front: "349e64a83d8a7d95cb5688369fc269309b7b85596fb3e23b8e0cdb949db7da15",
    },
    Fixture {
        name: "bitlk-aes-xts-128-startup-key",
        secrets: &[
            Bek("4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK"),
            Recovery("363770-230505-096371-652674-567006-579150-291038-408111"),
        ],
        whole: "bbb68369d8f7badb2c2330349d9d0cf12e68f54eece25e718d2bb13feba23f7a",
        front: "eca964d4a21ed4d5ac80fb37d196e70ca150b9c8ea2b496a868ca65ae85e2f7d",
    },
    Fixture {
        name: "bitlk-aes-xts-128-two-recovery",
        secrets: &[
            Password("anaconda"),
            Recovery("478401-067859-043868-000935-121330-337425-718509-484979"),
            Recovery("297693-343387-338492-284526-405482-424886-634931-555093"),
        ],
        whole: "15570b2a7a1255e2d0f34a0ff82b6e255d8a7e25c24c7849c91321bcb1858cb3",
        front: "f52b816fa8c592a4b7aadde2392eab8d760319493e4ba5534751d467749984bd",
    },
    Fixture {
        name: "bitlk-aes-xts-128-unicode",
        secrets: &[Password("anaconda£"), Recovery("671979-070675-187088-665060-078518-143605-111408-569305")],
        whole: "8af59ba83928e7920d61696bb3d5392243a1d5c5f4178195cb32b0f21e706af0",
        front: "3de954145955dcf45af52857305b45d4718236c800feafc396e2e26cc0334a53",
    },
    Fixture {
        name: "bitlk-aes-xts-128-clearkey-only",
        secrets: &[Clear],
        whole: "f574a5254d31e9f27dc4ee440290875886c6c569cf02dc100e91a5c0cddaa4e1",
        front: "4b1d780eb1458ff1e867f05d32c63268164578a6576953da6184ab5924ab559f",
    },
    Fixture {
        name: "dissect-aes-128",
        secrets: &[Password("password12!@")],
        // By dissect.fve 4.6, with reads of 8 KiB.
        whole: "d90b6e46f837d9b2f25c7ebca4cf42d6c17dbd08fc7f2ef1a8aed7d149becf75",
        front: "8767b556c56bf05de790d80054bb700916122983d4c5a7f5c12221b071db3330",
    },
    Fixture {
        name: "dissect-aes-128-diffuser",
        secrets: &[Password("password12!@")],
        // By dissect.fve 4.6, with reads of 8 KiB.
        whole: "c6da77807a5bf228cff85665d70dbc94c2d69e45f001bc8144b201808cd0c8d5",
        front: "c05d7381efae8eff9576db6db70ae07d55f29397ea741db4506f8378911cca64",
    },
    Fixture {
        name: "dissect-aes-xts-128",
        secrets: &[Password("password12!@")],
        // By dissect.fve 4.6, with reads of 8 KiB.
        whole: "2765001e256eb8ca9a38db007225706d9ec3228ba56bdace3642fd5280f2543d",
        front: "6fad4cf8efc4a6fdc9090641ba633d5eb4f78f3dae033c8737b8150f8c92c2f3",
    },
    Fixture {
        name: "dissect-recovery-password",
        secrets: &[Recovery("284867-596541-514998-422114-660297-261613-215424-199408")],
        // By dissect.fve 4.6, with reads of 8 KiB.
        whole: "f97cc63acafc01b818a72240219fe8212ed249995c017c3d97334dde0fc59c65",
        front: "ba08f54472ae5990e8560e706e9efad7383d20a9bb33d5248312903f988d19df",
    },
    Fixture {
        name: "dissect-startup-key",
        secrets: &[Bek("dissect-startup-key.bek")],
        // By dissect.fve 4.6, with reads of 8 KiB.
        whole: "2b03452675750d10795cdb2048ee9a501f6475347e4bceb0cb2960b88453af48",
        front: "d01b042e2045586d10a5ea56470152e80be3a906d656c5395a52b38f8ab16671",
    },
    Fixture {
        name: "dissect-aes-256",
        secrets: &[Password("password12!@")],
        whole: "c0b7b3e40e55b02e84432a93c95256a2a19438848fe65c66627b0c32056aff5a",
        front: "0225c461884176e54a36cacc1e38dd7525bf7820b12f5f376e96b44c2bee462b",
    },
    Fixture {
        name: "dissect-aes-256-diffuser",
        secrets: &[Password("password12!@")],
        whole: "bb5817a7f1a81b6840bbb8906d6ff833d0137f38cd95f99ea76ce7e49b5a5642",
        front: "16a735882a5508e1aaab02eedc99d3ed5718db543d999a9cb15e5b9b59da53dd",
    },
    Fixture {
        name: "dissect-aes-xts-256",
        secrets: &[Password("password12!@")],
        whole: "b8c012482b9e8219db651d2414a7685fca9a7fff94e45575145883f19be6e4ff",
        front: "1e2a8d3ca2724764b74bcf3df56fdfc7a5befe214dcf09112adc066708c5b174",
    },
    Fixture {
        name: "dissect-eow-partial",
        secrets: &[Password("password12!@")],
        // Not the README's d24b5c43…: dissect.fve's answer for this volume depends on the size of its reads (it lets a
        // chunk begin where a read begins), and that one is for 1 MiB. With reads of 8 KiB, which never cross a chunk's
        // border here, it gives this.
        whole: "05643efa277b704661177f2ecfaebf5943ad252064e3e743d165e18708031bde",
        front: "8e7040990978a91a7869a812eead6b93e8f1881b52c4562be53e463034c9189e",
    },
    Fixture {
        name: "dissect-recovery-key",
        secrets: &[Bek("dissect-recovery-key.bek"), Password("password12!@")],
        whole: "0db7f24a13553f4c6dc8afcdd98d7c0fa39b97f624aa3c4fbbbce6b84f4fac60",
        front: "b1a3f7acca41a9717df430175633152934c86d101774b4413d3d6915c606a153",
    },
    Fixture {
        name: "dissect-vista",
        secrets: &[Recovery("517506-503998-044583-576191-587004-635965-501270-087802")],
        whole: "dbe79012159ecff65fb5fc3e2f0855ed56a0762c1b1dade6ab8cee31687852a7",
        front: "11dc24695dcb5bb60299b562591c50df64417f8ecef2776333140ba9148569d8",
    },
    Fixture {
        name: "win-server2019-xts128-ntfs-full",
        secrets: &[Password("Password1234"), Recovery("272316-265804-640728-713570-509047-503305-045837-324731")],
        whole: "a450c70ec2446bcfa711a4d49294b05d2cc4a3d509bce209f572117f1253c701",
        front: "0af4f8789dbe23e00e29cb4e9210ee5baafc952b737d3d06f9ace8d8dc075344",
    },
];
